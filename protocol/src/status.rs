//! Status of an answer: HTTP codes, carried in the user property [`crate::property::STATUS`].

use core::fmt;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Status {
    /// Answered.
    Ok = 200,
    /// Malformed, or of the wrong shape, type or name.
    BadRequest = 400,
    /// This client may not do that.
    Forbidden = 403,
    /// No such model.
    NotFound = 404,
    /// The deadline passed before the request ran.
    DeadlinePassed = 408,
    /// Larger than [`crate::limit::REQUEST_MAX_BYTES`].
    TooLarge = 413,
    /// This client's quota is used up; try again after `retry-after-ms`.
    QuotaExceeded = 429,
    /// The runtime failed.
    RuntimeFailed = 500,
    /// The queue is full or the model is warming up; try again after `retry-after-ms`.
    Unavailable = 503,
}

impl Status {
    /// All statuses, in ascending order of code.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::BadRequest,
        Self::Forbidden,
        Self::NotFound,
        Self::DeadlinePassed,
        Self::TooLarge,
        Self::QuotaExceeded,
        Self::RuntimeFailed,
        Self::Unavailable,
    ];

    /// The HTTP code.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The status with this HTTP code.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }

    /// Whether the same request may succeed when sent again: such answers are never cached.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::QuotaExceeded | Self::Unavailable)
    }

    /// Name of the failure in telemetry and logs.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::BadRequest => "bad-request",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::DeadlinePassed => "deadline-passed",
            Self::TooLarge => "too-large",
            Self::QuotaExceeded => "quota-exceeded",
            Self::RuntimeFailed => "runtime-failed",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code())
    }
}
