//! A bar or spinner on standard error, on a terminal only.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows how far some work is. Costs nothing and writes nothing when hidden.
#[derive(Debug)]
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Of `total` units of work, or of an unknown number (`None`: a spinner). Hidden unless `visible` and
    /// standard error is a terminal.
    pub fn new(total: impl Into<Option<u64>>, label: &str, visible: bool) -> Self {
        let shown = visible && std::io::stderr().is_terminal();
        Self(shown.then(|| draw(total.into(), label, ProgressDrawTarget::stderr())))
    }

    /// Moves to `position` units and shows `message` beside the bar.
    pub fn set(&self, position: u64, message: impl Into<String>) {
        if let Some(bar) = &self.0 {
            bar.set_message(message.into());
            bar.set_position(position);
        }
    }

    /// Removes the bar, so that what is printed next stands on a clean line.
    pub fn finish(self) {
        if let Some(bar) = self.0 {
            bar.finish_and_clear();
        }
    }
}

fn draw(total: Option<u64>, label: &str, target: ProgressDrawTarget) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, target).with_prefix(label.to_owned());
    let template = match total {
        Some(_) => "{prefix} {bar:30} {pos}/{len} {elapsed}<{eta} {msg}",
        None => "{prefix} {spinner} {pos} {elapsed} {msg}",
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the templates above are well-formed"));
    if total.is_none() {
        bar.enable_steady_tick(Duration::from_millis(120));
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_when_shown_and_does_nothing_when_hidden() {
        for total in [Some(10), None] {
            let bar = draw(total, "train", ProgressDrawTarget::hidden());
            let progress = Progress(Some(bar.clone()));
            progress.set(3, "loss 0.69");
            assert_eq!((bar.position(), bar.message().as_str(), bar.length()), (3, "loss 0.69", total));
            progress.finish();
            assert!(bar.is_finished());
        }
        let hidden = Progress::new(10, "train", false);
        assert!(hidden.0.is_none());
        hidden.set(1, "");
        hidden.finish();
    }
}
