//! What was perhaps meant.

/// The candidate that is written most like `word`, if it is near enough.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 4).max(1);
    nearest_within(word, limit, candidates.into_iter().map(|candidate| (candidate, candidate)))
}

/// As [`nearest`], of candidates that stand for something else; `limit` letters may differ.
pub(crate) fn nearest_within<'a, T>(
    word: &str,
    limit: usize,
    candidates: impl IntoIterator<Item = (&'a str, T)>,
) -> Option<T> {
    let word = beginning(word);
    let mut best: Option<(usize, T)> = None;
    for (candidate, meaning) in candidates {
        let distance = strsim::damerau_levenshtein(&word, &beginning(candidate));
        if distance <= limit && best.as_ref().is_none_or(|(least, _)| distance < *least) {
            best = Some((distance, meaning));
        }
    }
    best.map(|(_, meaning)| meaning)
}

/// Comparing long texts takes long, and helps nobody.
fn beginning(text: &str) -> String {
    text.chars().take(200).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_found() {
        let known = ["port", "host", "models"];
        for (word, found) in
            [("prot", Some("port")), ("Modles", Some("models")), ("x", None), ("hots", Some("host"))]
        {
            assert_eq!(nearest(word, known), found, "{word}");
        }
    }
}
