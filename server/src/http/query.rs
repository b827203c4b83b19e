//! Core: the query of a request, read with suspicion: it comes from firmware, or from anybody. Touches nothing.

use common::limits::cut;

/// The pairs of a query, decoded: at most 16, each part cut to 256 bytes. A value that cannot be decoded is `None`,
/// because it counts that it was sent at all.
pub(crate) fn query_pairs(query: &str) -> Vec<(String, Option<String>)> {
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        Some((decoded(cut(name, 256))?, decoded(cut(value, 256))))
    };
    query.split('&').take(16).filter_map(pair).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let mut byte = [0];
                hex::decode_to_slice(digits, &mut byte).ok()?;
                byte[0]
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_with_suspicion() {
        let pairs = query_pairs("mac=52-54&serial=a%20b+c&bad=%zz&cut=%4&raw=%ff&empty=");
        let wanted = [
            ("mac", Some("52-54")),
            ("serial", Some("a b c")),
            ("bad", None),
            ("cut", None),
            ("raw", None),
            ("empty", Some("")),
        ];
        let wanted: Vec<_> = wanted.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).into();
        assert_eq!(pairs, wanted);
        assert_eq!(query_pairs(&"x=1&".repeat(1000)).len(), 16);
    }
}
