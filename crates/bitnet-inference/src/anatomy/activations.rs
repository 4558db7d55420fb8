//! [`ActivationRange`]: figures of the rows that a projection multiplies with.

use std::collections::BTreeMap;

use bitnet_model::reference::Site;

/// What the activations before a projection are like, over all tokens of a sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ActivationRange {
    /// The largest magnitude of all.
    pub absmax: f32,
    /// The smallest of the magnitudes that a row is scaled by.
    pub least_row_absmax: f32,
    rows: u64,
    values: u64,
    sum: f64,
    sum_of_magnitudes: f64,
    zeros: u64,
    ends: u64,
}

impl ActivationRange {
    /// Takes a row before quantisation and its int8 values.
    fn observe(&mut self, row: &[f32], q: &[i8]) {
        let absmax = row.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        self.absmax = self.absmax.max(absmax);
        self.least_row_absmax = if self.rows == 0 { absmax } else { self.least_row_absmax.min(absmax) };
        self.rows += 1;
        self.values += row.len() as u64;
        self.sum += row.iter().map(|&x| f64::from(x)).sum::<f64>();
        self.sum_of_magnitudes += row.iter().map(|&x| f64::from(x.abs())).sum::<f64>();
        self.zeros += q.iter().filter(|&&q| q == 0).count() as u64;
        self.ends += q.iter().filter(|q| q.unsigned_abs() >= 127).count() as u64;
    }

    fn of_all(&self, sum: f64) -> f64 {
        sum / self.values.max(1) as f64
    }

    /// The mean of all values.
    pub fn mean(&self) -> f64 {
        self.of_all(self.sum)
    }

    /// The mean of all magnitudes.
    pub fn mean_magnitude(&self) -> f64 {
        self.of_all(self.sum_of_magnitudes)
    }

    /// The share of values that become 0 in int8.
    pub fn zero_share(&self) -> f64 {
        self.of_all(self.zeros as f64)
    }

    /// The share of values that become 127 or less than -126 in int8, the ends of the range. The largest of each row does.
    pub fn saturated_share(&self) -> f64 {
        self.of_all(self.ends as f64)
    }
}

/// The ranges of all places where rows are quantised.
pub(super) struct Ranges(Vec<BTreeMap<&'static str, ActivationRange>>);

impl Ranges {
    /// Nothing yet, of so many layers.
    pub(super) fn new(layers: usize) -> Self {
        Self(vec![BTreeMap::new(); layers])
    }

    /// Takes a row.
    pub(super) fn observe(&mut self, site: Site, row: &[f32], q: &[i8]) {
        self.0[site.layer].entry(site.projection).or_default().observe(row, q);
    }

    /// What goes into a projection: where several read the same rows, the site names all of them.
    pub(super) fn of(&self, layer: usize, projection: &str) -> Option<&ActivationRange> {
        let reads = |names: &str| names.split(", ").any(|name| name == projection);
        self.0[layer].iter().find(|(names, _)| reads(names)).map(|(_, range)| range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_all_rows() {
        let mut ranges = Ranges::new(2);
        let site = |position| Site { layer: 1, projection: "q, k, v", position };
        ranges.observe(site(0), &[1.0, -2.0, 0.0, 0.001], &[64, -127, 0, 0]);
        ranges.observe(site(1), &[4.0, 0.0, 4.0, -1.0], &[127, 0, 127, -32]);
        let range = ranges.of(1, "k").unwrap();
        assert_eq!((range.absmax, range.least_row_absmax), (4.0, 2.0));
        assert!(
            (range.mean() - 6.001 / 8.0).abs() < 1e-6 && (range.mean_magnitude() - 12.001 / 8.0).abs() < 1e-6
        );
        assert_eq!((range.zero_share(), range.saturated_share()), (3.0 / 8.0, 3.0 / 8.0));
        assert_eq!((ranges.of(1, "o"), ranges.of(0, "q")), (None, None));
        let nothing = ActivationRange::default();
        assert_eq!((nothing.mean(), nothing.zero_share()), (0.0, 0.0));
    }
}
