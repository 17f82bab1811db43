//! The progress of an event's deliveries, for the person who waits.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use trigger_core::delivery::DeliveryState;
use trigger_core::duration;
use trigger_core::identity::Certname;
use trigger_fleet::status::EventStatus;

use crate::clean;
use crate::cli::globals::OutputFormat;
use crate::cli::target_counts;
use crate::output;

/// Prints a bar on a terminal, plain lines elsewhere, nothing with JSON.
pub(super) struct Progress {
    format: OutputFormat,
    bar: Option<ProgressBar>,
    known: BTreeMap<Certname, DeliveryState>,
    last_note: String,
}

impl Progress {
    pub(super) fn new(format: OutputFormat) -> Self {
        let on_terminal = format == OutputFormat::Text && std::io::stderr().is_terminal();
        let bar = on_terminal.then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
            let bar = ProgressBar::new(0);
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { format, bar, known: BTreeMap::new(), last_note: String::new() }
    }

    pub(super) fn show(&mut self, status: &EventStatus) {
        let ended = status.targets.values().filter(|target| target.state.is_end()).count();
        for (certname, target) in &status.targets {
            if self.known.insert(certname.clone(), target.state) == Some(target.state) {
                continue;
            }
            let reason = target.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
            self.line(&format!("{certname}: {}{reason}", target.state));
        }
        if let Some(bar) = &self.bar {
            bar.set_length(status.targets.len() as u64);
            bar.set_position(ended as u64);
            bar.set_message(target_counts::sentence(status));
        }
    }

    /// Prints a sentence, unless it was the last one already.
    pub(super) fn note(&mut self, sentence: &str) {
        if self.last_note != sentence {
            self.last_note = sentence.to_owned();
            self.line(sentence);
        }
    }

    fn line(&self, text: &str) {
        match (&self.bar, self.format) {
            (Some(bar), _) => bar.println(clean::line(text)),
            (None, OutputFormat::Text | OutputFormat::Dot) => output::note(text),
            (None, OutputFormat::Json) => {}
        }
    }

    pub(super) fn finish(&self, timed_out: Option<Duration>) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some(timeout) = timed_out {
            self.line(&format!("gave up after {}; the event goes on", duration::format(timeout)));
        }
    }
}
