//! Core: additional kernel arguments for the loader, as an admin configures them. Checked once, when the configuration
//! is read; a boot script has them as they are. Touches nothing.

use std::fmt;
use std::str::FromStr;

/// The limit in bytes: Linux keeps at most 2,048 bytes of command line on x86, and the server's own arguments take
/// about 250.
pub const KERNEL_ARGUMENTS_BYTES_MAX: usize = 1500;

/// Kernel arguments, displayed with a space before each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelArguments(String);

/// Why arguments cannot be put into a boot script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadArguments {
    /// They have characters that would end a line of the script or expand a variable.
    #[error("kernel arguments with control characters or `$`")]
    Steering,
    /// This argument has characters that iPXE would interpret.
    #[error(
        "the kernel argument {0:?} cannot go through iPXE: it may hold no character outside ASCII, backslash, `||`, `&&` or leading `#` or `;`"
    )]
    Word(String),
    /// They take this many bytes, which are too many.
    #[error("the kernel arguments take {0} bytes, more than {KERNEL_ARGUMENTS_BYTES_MAX}")]
    TooLong(usize),
}

impl FromStr for KernelArguments {
    type Err = BadArguments;

    fn from_str(text: &str) -> Result<Self, BadArguments> {
        if text.chars().any(|c| c.is_control() || c == '$') {
            return Err(BadArguments::Steering);
        }
        let mut words = String::new();
        for word in text.split_whitespace() {
            let printable = word.bytes().all(|byte| byte.is_ascii_graphic());
            let safe = !["||", "&&", "\\"].iter().any(|special| word.contains(special))
                && !word.starts_with(['#', ';']);
            if !(printable && safe) {
                return Err(BadArguments::Word(word.to_owned()));
            }
            words.push(' ');
            words.push_str(word);
        }
        if words.len() > KERNEL_ARGUMENTS_BYTES_MAX {
            Err(BadArguments::TooLong(words.len()))
        } else {
            Ok(Self(words))
        }
    }
}

impl fmt::Display for KernelArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_ipxe_would_misread_gets_in() {
        let read = str::parse::<KernelArguments>;
        for argument in ["||", "a&&b", "#x", ";", "a\\", "ä"] {
            assert_eq!(read(argument), Err(BadArguments::Word(argument.to_owned())), "{argument}");
        }
        for text in ["a\nboot", "${x}", "a $x", "a\tb"] {
            assert_eq!(read(text), Err(BadArguments::Steering), "{text}");
        }
        let long = "x".repeat(KERNEL_ARGUMENTS_BYTES_MAX);
        assert_eq!(read(&long), Err(BadArguments::TooLong(KERNEL_ARGUMENTS_BYTES_MAX + 1)));
        assert_eq!(read(" a  b=c ").unwrap().to_string(), " a b=c");
        assert_eq!(read("").unwrap(), KernelArguments::default());
    }
}
