//! The measurements, beside their goals and peers.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// All figures of one run of the bench.
#[derive(Default)]
pub(crate) struct Figures {
    rows: Vec<Figure>,
    notes: Vec<String>,
}

/// One line of the table.
pub(crate) struct Figure {
    pub(crate) measure: &'static str,
    pub(crate) setup: String,
    pub(crate) unit: &'static str,
    /// All samples; the table shows the median and the tenth and ninetieth percentile.
    pub(crate) samples: Vec<f64>,
    pub(crate) peer: Option<Peer>,
    pub(crate) goal: Option<Goal>,
}

/// Something else that was measured in the same way in the same run.
pub(crate) struct Peer {
    name: &'static str,
    median: f64,
}

impl Peer {
    /// Makes a peer of the original, the loop that Trigger grew from.
    pub(crate) fn original(samples: &[f64]) -> Self {
        Self { name: "original", median: median(samples) }
    }

    /// Makes a peer of Trigger itself on etcd, or of etcd's process.
    pub(crate) fn etcd(samples: &[f64]) -> Self {
        Self { name: "etcd", median: median(samples) }
    }

    /// Makes a peer of Trigger itself on the same backend without TLS and signatures.
    pub(crate) fn plain(samples: &[f64]) -> Self {
        Self { name: "plain", median: median(samples) }
    }

    /// Makes a peer of the same process earlier.
    pub(crate) fn before(samples: &[f64]) -> Self {
        Self { name: "before", median: median(samples) }
    }

    /// Makes a peer of Trigger itself with an RSA key.
    pub(crate) fn rsa(samples: &[f64]) -> Self {
        Self { name: "RSA-4096", median: median(samples) }
    }
}

/// The bound on a median.
pub(crate) enum Goal {
    AtMost(f64),
    /// A share of the peer's median.
    OfPeer(f64),
    /// So much more than the peer's median.
    AbovePeer(f64),
}

impl Figure {
    fn median(&self) -> f64 {
        median(&self.samples)
    }

    /// Returns the peer's median divided by Trigger's: how many times less Trigger takes.
    fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().filter(|_| self.median() > 0.0).map(|peer| peer.median / self.median())
    }

    fn limit(&self) -> Option<f64> {
        match self.goal.as_ref()? {
            Goal::AtMost(limit) => Some(*limit),
            Goal::OfPeer(share) => self.peer.as_ref().map(|peer| peer.median * share),
            Goal::AbovePeer(more) => self.peer.as_ref().map(|peer| peer.median + more),
        }
    }

    fn is_met(&self) -> Option<bool> {
        self.limit().map(|limit| self.median() <= limit)
    }
}

impl Figures {
    pub(crate) fn add(&mut self, figure: Figure) {
        self.rows.push(figure);
    }

    /// Adds a note that readers of the figures should know.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub(crate) fn to_table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).force_no_tty();
        table.set_header(["measure", "set-up", "median", "p10-p90", "n", "peer", "peer/ours", "goal", "met"]);
        for row in &self.rows {
            let spread = match row.samples.len() {
                0 | 1 => String::new(),
                _ => format!(
                    "{}-{}",
                    short(percentile(&row.samples, 0.1)),
                    short(percentile(&row.samples, 0.9))
                ),
            };
            let with_unit = |value: f64| format!("{} {}", short(value), row.unit);
            table.add_row([
                row.measure.to_owned(),
                row.setup.clone(),
                with_unit(row.median()),
                spread,
                row.samples.len().to_string(),
                row.peer
                    .as_ref()
                    .map_or_else(String::new, |peer| format!("{} {}", peer.name, with_unit(peer.median))),
                row.ratio().map_or_else(String::new, |ratio| format!("{ratio:.1}")),
                row.limit().map_or_else(String::new, |limit| format!("<= {}", with_unit(limit))),
                row.is_met().map_or("", |met| if met { "yes" } else { "NO" }).to_owned(),
            ]);
        }
        for index in [2, 3, 4, 5, 6, 7] {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let notes: String = self.notes.iter().map(|note| format!("\n- {note}")).collect();
        format!("{table}{notes}")
    }

    pub(crate) fn to_json(&self) -> Value {
        let row = |row: &Figure| {
            json!({
                "measure": row.measure,
                "setup": row.setup,
                "unit": row.unit,
                "median": row.median(),
                "samples": row.samples,
                "peer": row.peer.as_ref().map(|peer| json!({ "name": peer.name, "median": peer.median })),
                "peer_by_ours": row.ratio(),
                "goal_at_most": row.limit(),
                "met": row.is_met(),
            })
        };
        json!({ "figures": self.rows.iter().map(row).collect::<Vec<_>>(), "notes": self.notes })
    }
}

pub(crate) fn median(samples: &[f64]) -> f64 {
    percentile(samples, 0.5)
}

/// Returns a percentile, interpolated between the two nearest samples; 0 if there are none.
pub(crate) fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Formats a value with three significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_the_nearest_samples() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(percentile(&[0.0, 10.0], 0.9), 9.0);
    }

    #[test]
    fn a_goal_may_depend_on_the_peer() {
        let figure = |peer: Option<f64>, goal| Figure {
            measure: "m",
            setup: String::new(),
            unit: "ms",
            samples: vec![5.0],
            peer: peer.map(|median| Peer::original(&[median])),
            goal: Some(goal),
        };
        assert_eq!(figure(Some(11.0), Goal::OfPeer(0.5)).is_met(), Some(true));
        assert_eq!(figure(Some(9.0), Goal::OfPeer(0.5)).is_met(), Some(false));
        assert_eq!(figure(None, Goal::OfPeer(0.5)).is_met(), None, "nothing to compare with");
        assert_eq!(figure(Some(2.0), Goal::AbovePeer(3.0)).is_met(), Some(true));
        assert_eq!(figure(Some(1.9), Goal::AbovePeer(3.0)).is_met(), Some(false));
    }
}
