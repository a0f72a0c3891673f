//! A strict reader of OpenMetrics text: what a scraper would only shrug at is an error here.

use std::collections::{BTreeMap, BTreeSet};

/// What a scrape says.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    /// Type of each family, by its name without `_total` or `_bucket`.
    pub types: BTreeMap<String, String>,
    /// Families with a help text.
    pub helped: BTreeSet<String>,
    /// Values by series.
    pub series: BTreeMap<Series, f64>,
}

/// The name of a metric and its labels.
pub type Series = (String, BTreeMap<String, String>);

/// What a name of this type may end with, beyond the family's.
const SUFFIXES: [(&str, &[&str]); 4] = [
    ("counter", &["_total", "_created"]),
    ("gauge", &[""]),
    ("histogram", &["_bucket", "_count", "_sum", "_created"]),
    ("info", &["_info"]),
];

impl Exposition {
    /// Reads a whole text.
    ///
    /// # Errors
    /// The first line that is wrong, with what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("it does not end with `# EOF`")?;
        let mut read = Self::default();
        let mut family = String::new();
        for line in body.lines() {
            read.line(line, &mut family).map_err(|problem| format!("{problem}: {line}"))?;
        }
        read.histograms_are_whole()?;
        Ok(read)
    }

    /// The value of the one series with these labels; others may be on it too. Panics on several.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found = self.matching(name, labels);
        assert!(found.len() <= 1, "{name} with {labels:?} is not one series: {found:?}");
        found.first().map(|(_, value)| **value)
    }

    /// The sum over all series with these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).iter().map(|(_, value)| **value).sum()
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> Vec<(&Series, &f64)> {
        let has = |of: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| of.get(*key).is_some_and(|found| found == value))
        };
        self.series.iter().filter(|((of, found), _)| of == name && has(found)).collect()
    }

    fn line(&mut self, line: &str, family: &mut String) -> Result<(), &'static str> {
        if let Some(rest) = line.strip_prefix("# ") {
            return self.describe(rest, family);
        }
        let (name, rest) = line.split_at(line.find(['{', ' ']).ok_or("a sample without a value")?);
        if !is_name(name) {
            return Err("not the name of a metric");
        }
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (BTreeMap::new(), rest),
        };
        let value = rest.strip_prefix(' ').ok_or("no blank before the value")?;
        let value: f64 = value.parse().map_err(|_| "the value is not a number (or has more behind it)")?;
        self.belongs(name, family)?;
        if name.ends_with("_total") && value < 0.0 {
            return Err("a counter below zero");
        }
        match self.series.insert((name.to_owned(), labels), value) {
            Some(_) => Err("the same series twice"),
            None => Ok(()),
        }
    }

    fn describe(&mut self, rest: &str, family: &mut String) -> Result<(), &'static str> {
        let mut words = rest.splitn(3, ' ');
        let (Some(what), Some(name), Some(text)) = (words.next(), words.next(), words.next()) else {
            return Err("a description of nothing");
        };
        match what {
            "HELP" if !self.helped.insert(name.to_owned()) => return Err("described twice, or interleaved"),
            "HELP" => *family = name.to_owned(),
            "TYPE" if *family != name => return Err("TYPE without HELP before it"),
            "TYPE" if self.types.insert(name.to_owned(), text.to_owned()).is_some() => {
                return Err("two types");
            }
            "TYPE" if !SUFFIXES.iter().any(|(known, _)| *known == text) => return Err("unknown type"),
            "TYPE" => {}
            "UNIT" if !name.ends_with(&format!("_{text}")) => {
                return Err("the name does not end with its unit");
            }
            "UNIT" => {}
            _ => return Err("neither HELP, TYPE nor UNIT"),
        }
        Ok(())
    }

    /// A sample belongs to the family above it, and its ending to that family's type.
    fn belongs(&self, name: &str, family: &str) -> Result<(), &'static str> {
        let kind = self.types.get(family).ok_or("a sample of a family without a type")?;
        let ending = name.strip_prefix(family).ok_or("a sample that is not of the family above it")?;
        let (_, suffixes) = SUFFIXES.iter().find(|(known, _)| known == kind).ok_or("unknown type")?;
        suffixes.contains(&ending).then_some(()).ok_or("an ending that its type does not have")
    }

    /// Buckets are cumulative, end with `+Inf`, and that one is the count.
    fn histograms_are_whole(&self) -> Result<(), String> {
        let mut buckets: BTreeMap<Series, Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), value) in &self.series {
            let Some(family) = name.strip_suffix("_bucket") else { continue };
            let mut labels = labels.clone();
            let bound = labels.remove("le").ok_or_else(|| format!("{name} has a bucket without a bound"))?;
            let bound = bound.parse().map_err(|_| format!("{name}: {bound} is not a bound"))?;
            buckets.entry((family.to_owned(), labels)).or_default().push((bound, *value));
        }
        for ((family, labels), mut bounds) in buckets {
            bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
            let count = self.series.get(&(format!("{family}_count"), labels.clone()));
            let last = bounds.last().filter(|(bound, _)| bound.is_infinite()).map(|(_, count)| count);
            if bounds.windows(2).any(|pair| pair[0].1 > pair[1].1) || last != count {
                return Err(format!("the buckets of {family} {labels:?} do not add up: {bounds:?}"));
            }
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    name.bytes().all(legal) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str), &'static str> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, value) = rest.split_once("=\"").ok_or("a label without a value")?;
        if !is_name(name) {
            return Err("not the name of a label");
        }
        let (value, behind) = quoted(value).ok_or("a value that does not end")?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err("the same label twice");
        }
        rest = match behind.split_at_checked(1) {
            Some((",", behind)) => behind,
            Some(("}", behind)) => return Ok((labels, behind)),
            _ => return Err("neither `,` nor `}` behind a label"),
        };
    }
}

/// A value up to its closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((place, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[place + 1..])),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                escaped => escaped,
            }),
            letter => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(text: &str, problem: &str) {
        let error = Exposition::parse(text).expect_err(text);
        assert!(error.contains(problem), "{error}");
    }

    #[test]
    fn a_label_may_hold_quotes_commas_and_line_ends() {
        let text = "# HELP a b.\n# TYPE a gauge\na{x=\"1,\\\"\\n}\",y=\"2\"} 3\n# EOF\n";
        let read = Exposition::parse(text).expect("legal");
        assert_eq!(read.value("a", &[("x", "1,\"\n}"), ("y", "2")]), Some(3.0));
    }

    #[test]
    fn what_is_not_openmetrics_is_refused() {
        let head = "# HELP a b.\n# TYPE a counter\n";
        refuses(&format!("{head}a_total 1\n"), "EOF");
        refuses(&format!("{head}a 1\n# EOF\n"), "ending");
        refuses(&format!("{head}a_total one\n# EOF\n"), "number");
        refuses(&format!("{head}a_total 1\na_total 2\n# EOF\n"), "twice");
        refuses(&format!("{head}b_total 1\n# EOF\n"), "family above");
        refuses(&format!("{head}a_total{{x=1}} 1\n# EOF\n"), "label");
        refuses("# TYPE a counter\n# EOF\n", "without HELP");
        let histogram = "# HELP h b.\n# TYPE h histogram\nh_count 2\nh_bucket{le=\"1.0\"} 3\n";
        refuses(&format!("{histogram}h_bucket{{le=\"+Inf\"}} 2\n# EOF\n"), "add up");
    }
}
