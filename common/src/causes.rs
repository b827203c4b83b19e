//! Core: an error with its causes, as text for a person. Server and agent show errors in the same way, so the rule is
//! here and nowhere else. Touches nothing.
//!
//! Our own errors keep their cause out of their text, but some libraries (ureq, hyper) repeat in a wrapper's text what
//! they wrap: a cause that the text before it contains already is left out.

use std::error::Error;

/// The texts of `error` and of its sources, the innermost last.
#[must_use]
pub fn list(error: &dyn Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts
}

/// `error` with its causes, as one line: `no answer from … for the verdict: connection refused`.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    list(error).join(": ")
}

/// The causes of `error` without its own text, as one line; none when there are none to show.
#[must_use]
pub fn behind(error: &dyn Error) -> Option<String> {
    let texts = list(error);
    let causes = texts.get(1..).filter(|causes| !causes.is_empty())?;
    Some(causes.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error with a text and a source.
    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        source: Option<Box<Told>>,
    }

    /// An error with these texts, the outermost first.
    fn told(texts: &[&'static str]) -> Told {
        let (text, causes) = texts.split_first().unwrap();
        Told { text, source: (!causes.is_empty()).then(|| Box::new(told(causes))) }
    }

    #[test]
    fn each_cause_is_told_once() {
        let table: [(&[&str], &[&str]); 6] = [
            (&["no file"], &["no file"]),
            (&["cannot start", "no file", "disk gone"], &["cannot start", "no file", "disk gone"]),
            (&["cannot read: file is gone", "file is gone"], &["cannot read: file is gone"]),
            (&["no answer", "io: refused", "refused"], &["no answer", "io: refused"]),
            (&["cannot read (file is gone), again", "file is gone"], &["cannot read (file is gone), again"]),
            // A cause that is left out does not hide the one after it.
            (&["no answer: refused", "refused", "no route"], &["no answer: refused", "no route"]),
        ];
        for (texts, wanted) in table {
            assert_eq!(list(&told(texts)), wanted);
            assert_eq!(with_causes(&told(texts)), wanted.join(": "));
        }
    }

    #[test]
    fn what_stands_behind_leaves_the_error_itself_out() {
        assert_eq!(behind(&told(&["no file"])), None);
        assert_eq!(behind(&told(&["cannot read: no file", "no file"])), None);
        assert_eq!(behind(&told(&["cannot start", "no file"])).as_deref(), Some("no file"));
        assert_eq!(behind(&told(&["cannot start", "no file", "gone"])).as_deref(), Some("no file: gone"));
    }
}
