//! What sandboxes sent, received and were refused, as the firewalls of their namespaces count it.
//!
//! The sums over all sandboxes only grow: what a run counted stays in them after its end, but for what it counted
//! after the last look. Series of its own has who moved most; the number of these is bounded.

use crate::names::MOST;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// What one run of a sandbox counted since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressFigures {
    /// The run: its counts begin at zero.
    pub run: String,
    /// The sandbox whose run it is.
    pub sandbox: String,
    /// What passed and what did not; `None` when it could not be read this time, which changes nothing.
    pub moved: Option<Moved>,
}

/// Packets and bytes by direction, and packets dropped by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Packets that were let out.
    pub out_packets: u64,
    /// Their bytes.
    pub out_bytes: u64,
    /// Packets that came back.
    pub in_packets: u64,
    /// Their bytes.
    pub in_bytes: u64,
    /// Packets that were dropped, by cause; of causes there are few.
    pub dropped: BTreeMap<String, u64>,
}

/// The runs as last told, and the sums.
#[derive(Debug, Default)]
pub(crate) struct Egress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    total: Moved,
    runs: HashMap<String, Run>,
}

#[derive(Clone, Debug)]
struct Run {
    sandbox: String,
    moved: Moved,
}

impl Egress {
    /// Notes what each run counted; runs that are not among them have ended.
    pub(crate) fn set(&self, figures: Vec<EgressFigures>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut earlier = std::mem::take(&mut state.runs);
        for EgressFigures { run, sandbox, moved } in figures {
            let before = earlier.remove(&run).map(|run| run.moved).unwrap_or_default();
            let moved = moved.unwrap_or_else(|| before.clone());
            state.total.add(&moved.since(&before));
            state.runs.insert(run, Run { sandbox, moved });
        }
    }

    /// The sums, and those sandboxes that moved most.
    fn told(&self) -> (Moved, Vec<Run>) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut busiest: Vec<_> = state.runs.values().cloned().collect();
        busiest.sort_by(|a, b| (b.moved.activity(), &a.sandbox).cmp(&(a.moved.activity(), &b.sandbox)));
        busiest.truncate(MOST);
        (state.total.clone(), busiest)
    }
}

impl Moved {
    fn since(&self, earlier: &Self) -> Self {
        let before = |cause| earlier.dropped.get(cause).copied().unwrap_or_default();
        let dropped = self.dropped.iter();
        Self {
            out_packets: self.out_packets.saturating_sub(earlier.out_packets),
            out_bytes: self.out_bytes.saturating_sub(earlier.out_bytes),
            in_packets: self.in_packets.saturating_sub(earlier.in_packets),
            in_bytes: self.in_bytes.saturating_sub(earlier.in_bytes),
            dropped: dropped
                .map(|(cause, count)| (cause.clone(), count.saturating_sub(before(cause))))
                .collect(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.out_packets += other.out_packets;
        self.out_bytes += other.out_bytes;
        self.in_packets += other.in_packets;
        self.in_bytes += other.in_bytes;
        for (cause, count) in &other.dropped {
            *self.dropped.entry(cause.clone()).or_default() += count;
        }
    }

    /// Who comes first where there is room for few: bytes, then packets that were dropped.
    fn activity(&self) -> (u64, u64) {
        (self.out_bytes.saturating_add(self.in_bytes), self.dropped.values().sum())
    }
}

impl Collector for Egress {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (total, busiest) = self.told();
        Writer { encoder }.write(&total, &busiest)
    }
}

struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Writer<'_> {
    fn write(mut self, total: &Moved, busiest: &[Run]) -> fmt::Result {
        let all = [(Labels::new(), total)];
        self.families(
            ["flames_egress", "flames_egress_packets", "flames_egress_dropped_packets"],
            "all sandboxes",
            &all,
        )?;
        let each: Vec<_> =
            busiest.iter().map(|one| (vec![("sandbox", one.sandbox.as_str())], &one.moved)).collect();
        self.families(
            [
                "flames_sandbox_egress",
                "flames_sandbox_egress_packets",
                "flames_sandbox_egress_dropped_packets",
            ],
            "the sandboxes that moved most, since their present run began",
            &each,
        )
    }

    fn families(
        &mut self,
        [bytes, packets, dropped]: [&str; 3],
        whose: &str,
        rows: &[(Labels<'_>, &Moved)],
    ) -> fmt::Result {
        let help = format!("Bytes that passed out of and into {whose}");
        self.counter(bytes, &help, Some(&Unit::Bytes), rows, |moved| {
            directions(moved.out_bytes, moved.in_bytes)
        })?;
        let help = format!("Packets that passed out of and into {whose}");
        self.counter(packets, &help, None, rows, |moved| directions(moved.out_packets, moved.in_packets))?;
        let help = format!("Packets dropped by cause, of {whose}");
        self.counter(dropped, &help, None, rows, |moved| {
            moved.dropped.iter().map(|(cause, count)| (("cause", cause.as_str()), *count)).collect()
        })
    }

    fn counter(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: &[(Labels<'_>, &Moved)],
        points: impl for<'m> Fn(&'m Moved) -> Vec<((&'static str, &'m str), u64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, moved) in rows {
            for (label, count) in points(moved) {
                let labels: Labels<'_> = labels.iter().copied().chain([label]).collect();
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn directions<'a>(out: u64, into: u64) -> Vec<((&'static str, &'a str), u64)> {
    vec![(("direction", "out"), out), (("direction", "in"), into)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(run: &str, sandbox: &str, out_bytes: u64, denied: u64) -> EgressFigures {
        let dropped = [("deny".to_owned(), denied)].into();
        let moved = Moved { out_bytes, dropped, ..Moved::default() };
        EgressFigures { run: run.into(), sandbox: sandbox.into(), moved: Some(moved) }
    }

    #[test]
    fn sums_only_grow_though_runs_end_and_begin_anew() {
        let egress = Egress::default();
        egress.set(vec![figures("r1", "s1", 100, 1)]);
        egress.set(vec![figures("r1", "s1", 150, 1), figures("r2", "s2", 10, 0)]);
        assert_eq!(egress.told().0.out_bytes, 160);
        let unread = EgressFigures { moved: None, ..figures("r2", "s2", 0, 0) };
        egress.set(vec![figures("r1", "s1", 150, 1), unread]);
        egress.set(vec![figures("r1", "s1", 150, 1), figures("r2", "s2", 10, 0)]);
        assert_eq!(egress.told().0.out_bytes, 160, "what could not be read once is not counted twice");
        egress.set(vec![figures("r3", "s1", 5, 2)]); // s1 came back from disk: a run of its own
        let (total, busiest) = egress.told();
        assert_eq!((total.out_bytes, total.dropped["deny"]), (165, 3));
        assert_eq!(busiest.len(), 1);
    }

    #[test]
    fn the_busiest_have_series_of_their_own_and_no_more_than_the_bound() {
        let egress = Egress::default();
        egress.set((0..200).map(|n| figures(&format!("r{n}"), &format!("s{n}"), n, 0)).collect());
        let (total, busiest) = egress.told();
        assert_eq!((busiest.len(), busiest[0].sandbox.as_str()), (MOST, "s199"));
        assert_eq!(total.out_bytes, (0..200).sum::<u64>());
    }
}
