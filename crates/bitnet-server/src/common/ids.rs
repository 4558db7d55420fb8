//! Ids of answers and calls: a prefix and random digits.

/// An id that nothing else has: the prefix and 24 hexadecimal digits.
pub(crate) fn new_id(prefix: &str) -> String {
    format!("{prefix}{}", &crate::context::new_id()[..24])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<String> = (0..1000).map(|_| new_id("msg_")).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.starts_with("msg_") && id.len() == 28));
    }
}
