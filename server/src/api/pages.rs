//! Pages of lists: how many entries there may be, behind which one they begin, and where the next page is. Touches
//! nothing.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use common::limits::cut;
use serde::Serialize;

use super::client::url_part;
use super::shapes::PREFIX;
use crate::http::refusal::Refusal;

/// The most machines or events of a page.
pub(super) const ENTRIES_MAX: usize = 1000;
/// The most deployments of a page: each may have thousands of jobs.
pub(super) const DEPLOYMENTS_MAX: usize = 100;

/// How long a page is: what was asked for, at the most `most`, which is also what nobody asked otherwise.
///
/// # Errors
/// When it is no number, or 0.
pub(super) fn limit(asked: Option<&str>, most: usize) -> Result<usize, Refusal> {
    let Some(text) = asked else { return Ok(most) };
    match text.parse::<u64>() {
        Ok(limit) if limit > 0 => Ok(usize::try_from(limit).unwrap_or(most).min(most)),
        _ => {
            Err(Refusal::new(StatusCode::BAD_REQUEST, format!("`{}` is no length of a page", cut(text, 40)))
                .hint(format!("limit= is a number from 1 to {most}")))
        }
    }
}

/// The number behind which a page begins, written with the letter of its kind or without.
///
/// # Errors
/// When it is no number.
pub(super) fn after(asked: Option<&str>, letter: char) -> Result<Option<u64>, Refusal> {
    let Some(text) = asked else { return Ok(None) };
    text.strip_prefix(letter).unwrap_or(text).parse().map(Some).map_err(|_| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("`{}` is no number of an entry", cut(text, 40)))
            .hint("after= is the number of the last entry of the page before, as the Link header has it")
    })
}

/// The header that says where the next page is: at `path` below [`PREFIX`], with these words of its query.
pub(super) fn next_at(path: &str, query: &[(&str, String)]) -> Option<(HeaderName, HeaderValue)> {
    let words: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", url_part(value))).collect();
    let link = format!("<{PREFIX}{path}?{}>; rel=\"next\"", words.join("&"));
    Some((header::LINK, HeaderValue::from_str(&link).ok()?))
}

/// A page of a list.
pub(super) struct Page<T> {
    entries: Vec<T>,
    next: Option<(HeaderName, HeaderValue)>,
}

impl<T> Page<T> {
    /// The page of `limit` entries, of which `entries` has one more where there is a next page; that one is at what
    /// `next` makes of the last entry.
    pub(super) fn of(
        mut entries: Vec<T>,
        limit: usize,
        next: impl FnOnce(&T) -> Option<(HeaderName, HeaderValue)>,
    ) -> Self {
        let is_last = entries.len() <= limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| !is_last).and_then(next);
        Self { entries, next }
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let mut answer = Json(self.entries).into_response();
        answer.headers_mut().extend(self.next);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_long_as_asked_but_not_too_long() {
        for (asked, wanted) in [(None, 1000), (Some("1"), 1), (Some("1000"), 1000), (Some("99999"), 1000)] {
            assert_eq!(limit(asked, 1000).unwrap(), wanted, "{asked:?}");
        }
        assert_eq!(limit(Some("18446744073709551615"), 1000).unwrap(), 1000);
        for wrong in ["", "0", "-1", "x", "1e3", "99999999999999999999"] {
            assert!(limit(Some(wrong), 1000).is_err(), "{wrong}");
        }
        for (asked, wanted) in
            [(None, None), (Some("7"), Some(7)), (Some("m7"), Some(7)), (Some("0"), Some(0))]
        {
            assert_eq!(after(asked, 'm').unwrap(), wanted, "{asked:?}");
        }
        for wrong in ["", "m", "mm7", "d7", "-7", "7m"] {
            assert!(after(Some(wrong), 'm').is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_next_page_is_named_where_there_is_one() {
        let next = |last: &u8| {
            next_at("/machines", &[("after", last.to_string()), ("labels", "a in (b, c)".into())])
        };
        let page = Page::of(vec![1, 2, 3], 2, next);
        assert_eq!(page.entries, [1, 2]);
        let (_, link) = page.next.unwrap();
        let wanted = "</api/v1/machines?after=2&labels=a%20in%20%28b%2C%20c%29>; rel=\"next\"";
        assert_eq!(link, wanted);
        assert!(Page::of(vec![1, 2], 2, next).next.is_none());
        assert!(Page::of(vec![], 2, next).next.is_none());
    }
}
