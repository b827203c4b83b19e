//! The names of this host's users, for the log of who did what. Touches `/etc/passwd`.

/// The name of the user with this id, as `/etc/passwd` has it; else the id. The C library would also ask LDAP and others,
/// but a static program cannot load what it needs for that.
pub(super) fn name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    named(&users, uid).unwrap_or_else(|| format!("user {uid}"))
}

fn named(users: &str, uid: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_name_or_a_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\n# nonsense\nanna:x:1000:1000::/home/anna:/bin/sh\n";
        assert_eq!(named(users, 1000).as_deref(), Some("anna"));
        assert_eq!(named(users, 7), None);
        assert_eq!(name(4_000_000_000), "user 4000000000");
    }
}
