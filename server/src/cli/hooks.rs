//! `--hook` of an order as it is typed: a file, and limits behind it. Touches that file.

use std::path::Path;

use common::hooks::{Hook, OnFailure};
use common::limits::{HOOK_BYTES_MAX, HOOK_SECONDS};
use common::text::plain_name;
use common::user_data::UserData;

use crate::fault::Fault;

/// The hook that `given` says: `FILE[,timeout=SECONDS][,on-failure=continue]`. It is called as its file is.
///
/// # Errors
/// When the file cannot be read or is too long, or a key is not known.
pub(super) fn hook(given: &str) -> Result<Hook, Fault> {
    let mut parts = given.split(',');
    let path = Path::new(parts.next().unwrap_or_default());
    let (mut timeout_seconds, mut on_failure) = (HOOK_SECONDS, OnFailure::Fail);
    for part in parts {
        match part.split_once('=') {
            Some(("timeout", text)) => {
                timeout_seconds =
                    text.parse().map_err(|_| wrong(given, "timeout takes seconds, 1 to 3600"))?;
            }
            Some(("on-failure", "fail")) => on_failure = OnFailure::Fail,
            Some(("on-failure", "continue")) => on_failure = OnFailure::Continue,
            _ => {
                return Err(wrong(
                    given,
                    "behind the file stand timeout=SECONDS, on-failure=fail or continue",
                ));
            }
        }
    }
    let script = std::fs::read(path)
        .map_err(|error| Fault::failed(format!("cannot read the hook {}", path.display())).because(&error))?;
    if script.len() > HOOK_BYTES_MAX {
        return Err(Fault::usage(format!("the hook {} has {} bytes", path.display(), script.len()))
            .hint(format!("at most {HOOK_BYTES_MAX} bytes are taken; a script can fetch what is large")));
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = plain_name(&name).ok_or_else(|| wrong(given, "its file has no name"))?;
    Ok(Hook { name, script: UserData(script), timeout_seconds, on_failure })
}

fn wrong(given: &str, why: &str) -> Fault {
    Fault::usage(format!("`{given}` is no hook: {why}")).hint("such as --hook setup.sh,timeout=60")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_a_file_and_its_limits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("10 setup.sh");
        std::fs::write(&path, "true\n").unwrap();
        let path = path.display();
        let plain = hook(&path.to_string()).unwrap();
        assert_eq!((plain.name.as_str(), plain.timeout_seconds), ("10-setup.sh", 300));
        let more = hook(&format!("{path},timeout=60,on-failure=continue")).unwrap();
        assert_eq!((more.timeout_seconds, more.on_failure), (60, OnFailure::Continue));
        for wrong in ["timeout=x", "timeout", "colour=red", "on-failure=maybe"] {
            assert!(hook(&format!("{path},{wrong}")).is_err(), "{wrong}");
        }
        assert!(hook("/nowhere/at/all").is_err());
    }
}
