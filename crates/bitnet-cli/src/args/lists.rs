//! Lists and ranges of numbers, as llama-bench takes them: `1,2,4`, `1-4`, `0-4096+512`, `1-32*2`.

/// Most numbers in one list.
const LONGEST: usize = 1000;
const ALLOWED: &str =
    "it must be numbers (512), lists (1,2,4) or ranges (first-last, first-last+step, first-last*factor)";

/// Numbers of one flag, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List(pub(crate) Vec<usize>);

/// Numbers from 0 on.
pub(crate) fn list(text: &str) -> Result<List, String> {
    let mut numbers = Vec::new();
    for item in text.split(',') {
        range(item.trim(), &mut numbers)?;
    }
    Ok(List(numbers))
}

/// Numbers from 1 on.
pub(crate) fn positive_list(text: &str) -> Result<List, String> {
    bounded(text, 1..=usize::MAX, "each must be at least 1")
}

/// Numbers of threads.
pub(crate) fn thread_list(text: &str) -> Result<List, String> {
    bounded(text, 1..=1024, "each must be from 1 to 1024")
}

/// Two numbers, both at least 1.
pub(crate) fn pair(text: &str) -> Result<(usize, usize), String> {
    let wrong = || "it must be two numbers of tokens, at least 1: PROMPT,ANSWER".to_owned();
    let (first, second) = text.split_once(',').ok_or_else(wrong)?;
    match (first.trim().parse(), second.trim().parse()) {
        (Ok(first), Ok(second)) if first > 0 && second > 0 => Ok((first, second)),
        _ => Err(wrong()),
    }
}

fn bounded(text: &str, allowed: std::ops::RangeInclusive<usize>, message: &str) -> Result<List, String> {
    let list = list(text)?;
    if list.0.iter().all(|n| allowed.contains(n)) { Ok(list) } else { Err(message.to_owned()) }
}

/// Adds one number or the numbers of one range.
fn range(item: &str, numbers: &mut Vec<usize>) -> Result<(), String> {
    let number = |text: &str| text.parse::<usize>().map_err(|_| ALLOWED.to_owned());
    let Some((first, rest)) = item.split_once('-') else {
        numbers.push(number(item)?);
        return checked_length(numbers);
    };
    let (last, step, factor) = if let Some((last, step)) = rest.split_once('+') {
        (last, number(step)?, 1)
    } else if let Some((last, factor)) = rest.split_once('*') {
        (last, 0, number(factor)?)
    } else {
        (rest, 1, 1)
    };
    let (mut at, last) = (number(first)?, number(last)?);
    let grows = step > 0 || factor > 1 && at > 0;
    if at > last || !grows {
        return Err(format!("the range {item} does not go up from its first number to its last"));
    }
    while at <= last {
        numbers.push(at);
        checked_length(numbers)?;
        match at.checked_mul(factor).and_then(|n| n.checked_add(step)) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(())
}

fn checked_length(numbers: &[usize]) -> Result<(), String> {
    if numbers.len() > LONGEST { Err(format!("these are more than {LONGEST} numbers")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_read() {
        for (text, numbers) in [
            ("512", &[512][..]),
            ("0", &[0]),
            ("1,2,4", &[1, 2, 4]),
            ("1, 2", &[1, 2]),
            ("1-4", &[1, 2, 3, 4]),
            ("0-1024+512", &[0, 512, 1024]),
            ("0-1000+512", &[0, 512]),
            ("1-32*2", &[1, 2, 4, 8, 16, 32]),
            ("7-7", &[7]),
            ("0,64-128+64,5", &[0, 64, 128, 5]),
            ("18446744073709551615", &[usize::MAX]),
            ("9223372036854775808-18446744073709551615*2", &[1 << 63]),
        ] {
            assert_eq!(list(text), Ok(List(numbers.to_vec())), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [
            "",
            ",",
            "1,",
            "a",
            "-1",
            "1-",
            "-",
            "4-1",
            "1-4+0",
            "1-4*1",
            "0-4*2",
            "1-4+",
            "1-4*",
            "1.5",
            "1-2-3",
            "0-5000",
            "1-18446744073709551615",
            "99999999999999999999",
        ] {
            assert!(list(text).is_err(), "{text}");
        }
        assert!(positive_list("0,1").is_err() && positive_list("1").is_ok());
        assert!(thread_list("1025").is_err() && thread_list("1-2").is_ok());
    }

    #[test]
    fn pairs_are_two_numbers() {
        assert_eq!(pair("512,128"), Ok((512, 128)));
        for text in ["512", "512,0", "0,128", "1,2,3", "a,b", ""] {
            assert!(pair(text).is_err(), "{text}");
        }
    }
}
