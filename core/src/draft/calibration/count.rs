//! Hits among offers, forgotten exponentially.

/// Offers' worth of trust that a cell places in the level above it.
const SHRINKAGE: f64 = 4.0;

/// Exponentially forgotten counts of one kind of candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Count {
    pub(super) offers: f64,
    pub(super) hits: f64,
}

impl Count {
    /// As after `offers` offers of which `rate` were hits.
    pub(super) fn of(rate: f64, offers: f64) -> Self {
        Self { offers, hits: offers * rate }
    }

    pub(super) fn observe(&mut self, hit: bool, window: f64) {
        let keep = 1.0 - 1.0 / window;
        self.offers = self.offers * keep + 1.0;
        self.hits = self.hits * keep + f64::from(u8::from(hit));
    }

    /// Hit rate, leaning on `prior` as on `SHRINKAGE` offers.
    pub(super) fn rate(&self, prior: f64) -> f64 {
        (self.hits + SHRINKAGE * prior) / (self.offers + SHRINKAGE)
    }

    /// Hit rate of counts that did not begin empty.
    pub(super) fn share(&self) -> f64 {
        self.hits / self.offers
    }
}
