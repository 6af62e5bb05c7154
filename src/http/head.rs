//! The head of a request, as readers of it see it.

/// The head of a request, whoever parsed it.
pub trait Head: Sync {
    /// The method, as sent.
    fn method(&self) -> &str;
    /// What stands behind the `?`, still encoded.
    fn query(&self) -> Option<&[u8]>;
    /// Gives the values of every header of that name, in their order.
    fn headers<'a>(&'a self, name: &str, each: &mut dyn FnMut(&'a [u8]));
}

/// A head of which nothing is known.
impl Head for () {
    fn method(&self) -> &str {
        ""
    }

    fn query(&self) -> Option<&[u8]> {
        None
    }

    fn headers<'a>(&'a self, _name: &str, _each: &mut dyn FnMut(&'a [u8])) {}
}
