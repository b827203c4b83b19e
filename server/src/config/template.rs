//! Core: the commented configuration files, which have every setting with what it means and its default; `config show`
//! and the manual's page of settings are made from them. Touches nothing.

/// The configuration of `serve`, as it is installed.
pub(crate) const SERVER: &str = include_str!("../../packaging/swarmboot.toml");

/// What a setting's comment says when nothing holds unless it is set.
const NO_DEFAULT: &str = "No default.";

/// One setting of a commented configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Its name; `site.limit` in a table, `[[site]]` or `[export]` for the table itself.
    pub(crate) key: String,
    /// The value that is shown, as TOML has it: the default, or an example.
    pub(crate) value: String,
    /// Whether the value is the default.
    pub(crate) is_default: bool,
    /// What it means, as one text.
    pub(crate) about: String,
}

/// The settings of a commented file, in its order. Comments are `# …`, settings `#key = value` or the same without `#`.
pub(crate) fn settings(text: &str) -> Vec<Setting> {
    let (mut settings, mut about, mut table) = (vec![], String::new(), String::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            about = format!("{about} {comment}").trim_start().to_owned();
            continue;
        }
        let line = line.strip_prefix('#').unwrap_or(line).trim();
        let is_default = table.is_empty() && !about.contains(NO_DEFAULT);
        let said = about.replace(NO_DEFAULT, "").trim_end().to_owned();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.trim_matches(['[', ']']).clone_into(&mut table);
            settings.push(Setting {
                key: line.to_owned(),
                value: String::new(),
                is_default: false,
                about: said,
            });
        } else if let Some((key, value)) = line.split_once(" = ") {
            let key = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
            settings.push(Setting { key, value: value.to_owned(), is_default, about: said });
        }
        about.clear();
    }
    settings
}

/// The file with every setting that is commented out in force; `is_default` keeps the defaults alone.
#[cfg(test)]
pub(crate) fn in_force(text: &str, is_default: bool) -> String {
    let wanted: Vec<String> = settings(text)
        .into_iter()
        .filter(|setting| !is_default || setting.is_default)
        .map(|Setting { key, value, .. }| match key.split_once('.') {
            _ if value.is_empty() => key,
            Some((_, own)) => format!("{own} = {value}"),
            None => format!("{key} = {value}"),
        })
        .collect();
    wanted.join("\n")
}

/// The names of the fields that `T` is read from.
#[cfg(test)]
pub(crate) fn fields<T: serde::de::DeserializeOwned>() -> Vec<String> {
    let wrong =
        toml::from_str::<T>("\"\" = 0").err().map(|error| error.message().to_owned()).unwrap_or_default();
    wrong.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commented_file_is_read() {
        let text = "# Of all.\n\n# A port,\n# for x.\n#port = 1\n\n# A way. No default.\n#way = \"a\"\n\n# A site. No default.\n\
                    #[[site]]\n# Its name.\n#name = \"b\"\n";
        let of = |key: &str, value: &str, is_default, about: &str| Setting {
            key: key.to_owned(),
            value: value.to_owned(),
            is_default,
            about: about.to_owned(),
        };
        let all = [
            of("port", "1", true, "A port, for x."),
            of("way", "\"a\"", false, "A way."),
            of("[[site]]", "", false, "A site."),
            of("site.name", "\"b\"", false, "Its name."),
        ];
        assert_eq!(settings(text), all);
        assert_eq!(in_force(text, true), "port = 1");
        assert_eq!(in_force(text, false), "port = 1\nway = \"a\"\n[[site]]\nname = \"b\"");
    }
}
