//! The head of a request, independent of its parser.

/// The head of a request.
pub trait Head: Sync {
    /// The method, as sent.
    fn method(&self) -> &str;
    /// The query after `?`, still encoded.
    fn query(&self) -> Option<&[u8]>;
    /// Passes on the values of every header of that name, in order.
    fn headers<'a>(&'a self, name: &str, each: &mut dyn FnMut(&'a [u8]));
}

/// An unknown head.
impl Head for () {
    fn method(&self) -> &str {
        ""
    }

    fn query(&self) -> Option<&[u8]> {
        None
    }

    fn headers<'a>(&'a self, _name: &str, _each: &mut dyn FnMut(&'a [u8])) {}
}
