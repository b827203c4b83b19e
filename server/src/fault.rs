//! An error as a person reads it: what failed, why, what to do; and the exit code. Touches standard error.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use common::causes;
use common::wire::http::Refused;

/// The kind of failure, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command was right, and failed. Exit code 1.
    Failed,
    /// The command or the configuration is wrong. Exit code 2.
    Usage,
    /// No server answers. Exit code 3.
    NoServer,
}

/// The exit code of a command that succeeded for some machines only.
pub const DONE_IN_PART: u8 = 4;

/// An error for a person.
#[derive(Debug)]
pub struct Fault {
    kind: Kind,
    sentence: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Fault {
    fn new(kind: Kind, sentence: impl Into<String>) -> Self {
        Self { kind, sentence: sentence.into(), causes: vec![], hint: None }
    }

    /// The command failed: `sentence` says what, in lower case and without a full stop.
    pub fn failed(sentence: impl Into<String>) -> Self {
        Self::new(Kind::Failed, sentence)
    }

    /// The command or the configuration is wrong.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::new(Kind::Usage, sentence)
    }

    /// No server answers.
    pub fn no_server(sentence: impl Into<String>) -> Self {
        Self::new(Kind::NoServer, sentence)
    }

    /// Adds `error` and all its sources as causes.
    #[must_use]
    pub fn because(mut self, error: &dyn Error) -> Self {
        self.causes.extend(causes::list(error));
        self
    }

    /// Sets the hint: what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sentence, causes and hint, each by itself.
    #[must_use]
    pub(crate) fn parts(&self) -> (&str, &[String], Option<&str>) {
        (&self.sentence, &self.causes, self.hint.as_deref())
    }

    /// The text: lines that begin with `error:`, `cause:` and `hint:`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.sentence);
        for cause in &self.causes {
            let _ = writeln!(text, "cause: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }

    /// Prints the text to standard error and returns the exit code.
    pub fn report(&self) -> ExitCode {
        use std::io::Write as _;
        let _ = std::io::stderr().write_all(self.text().as_bytes());
        ExitCode::from(match self.kind {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NoServer => 3,
        })
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        Self {
            kind: Kind::Failed,
            sentence: refused.error,
            causes: refused.cause.into_iter().collect(),
            hint: refused.hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read: file is gone")]
        struct Outer(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("file is gone")]
        struct Inner;
        let fault = Fault::failed("cannot do it").because(&Outer(Inner)).hint("try again");
        assert_eq!(fault.text(), "error: cannot do it\ncause: cannot read: file is gone\nhint: try again\n");
    }
}
