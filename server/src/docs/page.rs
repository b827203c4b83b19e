//! Core: a page of the manual: Markdown as HTML, with links to the other pages and a name for each heading. Touches
//! nothing.

use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};

/// The title of a page: its first heading.
pub(super) fn title(markdown: &str) -> String {
    let first = markdown.lines().find_map(|line| line.strip_prefix("# "));
    first.unwrap_or("swarmboot").trim().to_owned()
}

/// The links of a page, as they are written.
#[cfg(test)]
pub(super) fn links(markdown: &str) -> Vec<String> {
    let target = |event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.to_string()),
        _ => None,
    };
    parser(markdown).filter_map(target).collect()
}

/// The names of a page's headings.
#[cfg(test)]
pub(super) fn anchors(markdown: &str) -> Vec<String> {
    let id = |event| match event {
        Event::Start(Tag::Heading { id, .. }) => id.map(|id| id.to_string()),
        _ => None,
    };
    named(parser(markdown).collect()).into_iter().filter_map(id).collect()
}

/// The page `name` with `markdown` as its text, and links to all `pages`: their titles and names.
pub(super) fn html(name: &str, markdown: &str, pages: &[(String, String)]) -> String {
    let events = named(parser(markdown).map(linked).collect());
    let mut text = String::new();
    html::push_html(&mut text, events.into_iter());
    let mut list = String::new();
    for (title, other) in pages {
        let here = if other == name { " aria-current=\"page\"" } else { "" };
        list.push_str(&format!("<li><a href=\"/docs/{other}\"{here}>{}</a></li>\n", escaped(title)));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{} – swarmboot</title>\n\
         <link rel=\"stylesheet\" href=\"/docs/style.css\">\n</head>\n<body>\n\
         <nav aria-label=\"Pages of the manual\">\n<ul>\n{list}</ul>\n</nav>\n<main>\n{text}</main>\n</body>\n</html>\n",
        escaped(&title(markdown))
    )
}

fn parser(markdown: &str) -> Parser<'_> {
    Parser::new_ext(markdown, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH)
}

/// Links to files of the manual become links to its pages. HTML in a page is shown as text.
fn linked(event: Event<'_>) -> Event<'_> {
    let target = |url: CowStr<'_>| -> CowStr<'static> {
        if url.contains("://") || url.starts_with('#') {
            return url.to_string().into();
        }
        let (file, part) = url.split_once('#').map_or((&*url, None), |(file, part)| (file, Some(part)));
        let part = part.map(|part| format!("#{part}")).unwrap_or_default();
        format!("/docs/{}{part}", file.trim_end_matches(".md")).into()
    };
    match event {
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            Event::Start(Tag::Link { link_type, dest_url: target(dest_url), title, id })
        }
        Event::Start(Tag::Image { link_type, dest_url, title, id }) => {
            Event::Start(Tag::Image { link_type, dest_url: target(dest_url), title, id })
        }
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        other => other,
    }
}

/// Gives each heading the name that GitHub gives it, so that a link works at both places.
fn named(mut events: Vec<Event<'_>>) -> Vec<Event<'_>> {
    let mut words = String::new();
    for at in (0..events.len()).rev() {
        match &mut events[at] {
            Event::End(TagEnd::Heading(_)) => words.clear(),
            Event::Text(text) | Event::Code(text) => words.insert_str(0, text),
            Event::Start(Tag::Heading { id, .. }) => {
                let kept = |char: char| match char {
                    ' ' => Some('-'),
                    '-' | '_' => Some(char),
                    char => char.is_alphanumeric().then_some(char),
                };
                *id = Some(words.to_lowercase().chars().filter_map(kept).collect::<String>().into());
            }
            _ => {}
        }
    }
    events
}

/// `text` as HTML shows it, also in a quoted attribute.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_html_with_names_and_links() {
        let text = "# A & B\n\n## The `doctor` says: no\n\n[r](relay.md#set-one-up) [x](https://a.b/c.md) [h](#a)\n\n\
                    ![p](way.svg)\n\n<script>alert(1)</script>\n\n| a |\n| - |\n| b |\n";
        let html =
            html("x", text, &[("A & B".to_owned(), "x".to_owned()), ("R".to_owned(), "relay".to_owned())]);
        for part in [
            "<title>A &amp; B – swarmboot</title>",
            "<h2 id=\"the-doctor-says-no\">",
            "href=\"/docs/relay#set-one-up\"",
            "href=\"https://a.b/c.md\"",
            "href=\"#a\"",
            "src=\"/docs/way.svg\"",
            "<td>b</td>",
            "<a href=\"/docs/x\" aria-current=\"page\">",
            "&lt;script&gt;",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(!html.contains("<script"));
        assert_eq!(links(text), ["relay.md#set-one-up", "https://a.b/c.md", "#a", "way.svg"]);
    }
}
