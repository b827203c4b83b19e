//! Core: the words for what became of a packet; they are the values of labels. Touches nothing.

/// What became of a DHCP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DhcpResult {
    /// An address was offered.
    Offered,
    /// A lease was acknowledged, or an INFORM answered.
    Acknowledged,
    /// The address that the client wants was refused.
    Refused,
    /// Boot information was sent beside another server's address.
    Proxied,
    /// The address is probed first; the packet is counted again when it is decided.
    Probed,
    /// The range has no address left.
    Exhausted,
    /// There is no boot program for the firmware.
    NoProgram,
    /// Nothing was sent, for another reason: it is not for us.
    Ignored,
    /// It is no DHCP request.
    Malformed,
}

impl DhcpResult {
    /// All results.
    pub const ALL: [Self; 9] = [
        Self::Offered,
        Self::Acknowledged,
        Self::Refused,
        Self::Proxied,
        Self::Probed,
        Self::Exhausted,
        Self::NoProgram,
        Self::Ignored,
        Self::Malformed,
    ];

    /// The label's value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Acknowledged => "acknowledged",
            Self::Refused => "refused",
            Self::Proxied => "proxied",
            Self::Probed => "probed",
            Self::Exhausted => "exhausted",
            Self::NoProgram => "no-program",
            Self::Ignored => "ignored",
            Self::Malformed => "malformed",
        }
    }
}

/// What became of a TFTP request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TftpResult {
    /// The transfer ran to its end, or to the client's silence.
    Ended,
    /// The client hung up: PXE ROMs do so once they know a file's size.
    HungUp,
    /// There is no such file.
    Absent,
    /// The request was refused for its form.
    Refused,
    /// Too many transfers run.
    Busy,
    /// It failed inside.
    Broken,
    /// It came from a network that is not served.
    Foreign,
}

impl TftpResult {
    /// All results.
    pub const ALL: [Self; 7] =
        [Self::Ended, Self::HungUp, Self::Absent, Self::Refused, Self::Busy, Self::Broken, Self::Foreign];

    /// The label's value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::HungUp => "hung-up",
            Self::Absent => "absent",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::Broken => "broken",
            Self::Foreign => "foreign",
        }
    }
}
