//! Networks: an address and how many of its bits count (CIDR, RFC 4632).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses with a common prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Its first address; never an IPv4 address in IPv6 form.
    first: IpAddr,
    /// Prefix length: 0 to 32, or to 128.
    prefix: u8,
}

/// Why a text is not a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkError {
    /// Not an address, or an invalid prefix length.
    Malformed,
    /// Host bits are set; this network was probably meant.
    Meant(Network),
}

impl Network {
    /// All IPv4 addresses and all IPv6 addresses.
    pub const ALL: [Self; 2] = [
        Self { first: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), prefix: 0 },
        Self { first: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), prefix: 0 },
    ];

    /// Whether an address is in it. An IPv4 address in IPv6 form counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let differ = first.to_bits() ^ address.to_bits();
                differ.checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let differ = first.to_bits() ^ address.to_bits();
                differ.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// The network of this size that the address is in.
    fn around(address: IpAddr, prefix: u8) -> Self {
        let first = match address {
            IpAddr::V4(address) => {
                IpAddr::V4((address.to_bits() & !u32::MAX.checked_shr(prefix.into()).unwrap_or(0)).into())
            }
            IpAddr::V6(address) => {
                IpAddr::V6((address.to_bits() & !u128::MAX.checked_shr(prefix.into()).unwrap_or(0)).into())
            }
        };
        Self { first, prefix }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// `10.0.0.0/8`, `2001:db8::/32`, or one address.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let written: IpAddr = address.parse().map_err(|_| NetworkError::Malformed)?;
        let address = written.to_canonical();
        // `::ffff:10.0.0.0/104` is 10.0.0.0/8.
        let shorter = if written.is_ipv6() && address.is_ipv4() { 96 } else { 0 };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let prefix: u8 = digits.parse().map_err(|_| NetworkError::Malformed)?;
                prefix.checked_sub(shorter).filter(|prefix| *prefix <= most).ok_or(NetworkError::Malformed)?
            }
            Some(_) => return Err(NetworkError::Malformed),
        };
        let network = Self::around(address, prefix);
        if network.first == address { Ok(network) } else { Err(NetworkError::Meant(network)) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

/// A list of networks, searched linearly: made for tens of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them has the address.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The longest prefix of those that have the address.
    #[must_use]
    pub fn narrowest(&self, address: IpAddr) -> Option<u8> {
        self.0.iter().filter(|network| network.contains(address)).map(|network| network.prefix).max()
    }

    /// One that is in both lists.
    #[must_use]
    pub fn shared_with(&self, other: &Self) -> Option<Network> {
        self.0.iter().find(|network| other.0.contains(network)).copied()
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}
