//! A method with a mistake in its derivative, under which claims have to fail.

use std::fmt;

use crate::engine::{Cotangent, Readout, Want};
use crate::method::{Credit, Meta, Method, OnPolicy, Rewarded, Samples, Sums, View};

struct Corrupted<F> {
    method: Box<dyn Method>,
    slip: F,
}

/// `method`, whose derivative goes through `slip`.
pub(super) fn corrupted(
    method: Box<dyn Method>,
    slip: impl Fn(&View, &mut Cotangent) + Send + Sync + 'static,
) -> Box<dyn Method> {
    Box::new(Corrupted { method, slip })
}

/// The sign of the derivative by log-probabilities, turned.
pub(super) fn turn(_: &View, out: &mut Cotangent) {
    out.logp.iter_mut().for_each(|cotangent| *cotangent = -*cotangent);
}

impl<F> fmt::Debug for Corrupted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Corrupted").field(&self.method).finish()
    }
}

impl<F: Fn(&View, &mut Cotangent) + Send + Sync> Method for Corrupted<F> {
    fn meta(&self) -> &'static Meta {
        self.method.meta()
    }

    fn want(&self) -> Want {
        self.method.want()
    }

    fn readout(&self) -> Readout {
        self.method.readout()
    }

    fn samples(&self) -> Option<Samples> {
        self.method.samples()
    }

    fn on_policy(&self) -> Option<OnPolicy> {
        self.method.on_policy()
    }

    fn advantages(&self, rewarded: &Rewarded) -> Vec<Option<f64>> {
        self.method.advantages(rewarded)
    }

    fn credit(&self, rewarded: &Rewarded) -> Vec<Option<Credit>> {
        self.method.credit(rewarded)
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        let sums = self.method.loss(view, out);
        (self.slip)(view, out);
        sums
    }
}
