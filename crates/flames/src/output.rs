//! How results and errors look: tables and bars for people, JSON for programs.

use comfy_table::{ContentArrangement, Table, presets};
use flames_api::Problem;
use flames_api::model::TimingsView;
use serde::Serialize;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// An error that has an exit code of its own.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) error: anyhow::Error,
}

/// The daemon's refusal.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) Problem);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.error.as_ref())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl std::error::Error for Refusal {}

/// Prints an error with its mend, and gives the exit code.
pub(crate) fn fail(error: &anyhow::Error, json: bool) -> ExitCode {
    let code =
        error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map_or(1, |failure| failure.code);
    let problem = error.chain().find_map(|cause| cause.downcast_ref::<Refusal>()).map(|refusal| &refusal.0);
    let mut text = match (json, problem) {
        (true, Some(problem)) => serde_json::to_string(problem).unwrap_or_default(),
        (true, None) => serde_json::json!({ "detail": describe(error) }).to_string(),
        (false, _) => format!("flames: {}", describe(error)),
    };
    if let (false, Some(mend)) = (json, problem.and_then(|problem| problem.mend.as_deref())) {
        text.push_str("\n  mend: ");
        text.push_str(mend);
    }
    // Nobody is left to tell if standard error is gone.
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::from(code)
}

fn describe(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Failure>() {
        Some(failure) => format!("{:#}", failure.error),
        None => format!("{error:#}"),
    }
}

/// Prints a line; a reader that went away is not an error.
pub(crate) fn line(text: impl fmt::Display) -> anyhow::Result<()> {
    quiet_pipe(writeln!(io::stdout(), "{text}"))
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Prints rows under headings.
pub(crate) fn table(headings: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(headings.to_vec());
    for row in rows {
        table.add_row(row);
    }
    line(table.to_string().trim_end())
}

fn quiet_pipe(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

const BAR_WIDTH: f64 = 40.0;

/// The stages of a create, and of its first command if there was one, as bars on standard error.
pub(crate) fn timing_bars(timings: &TimingsView, first_command_ms: Option<f64>) {
    let mut stages = stages(timings);
    stages.extend(first_command_ms.map(|took| ("first command", took)));
    let total: f64 = timings.create_ms + first_command_ms.unwrap_or(0.0);
    bars(&stages, total);
}

/// Stages and what they took together, as bars on standard error.
pub(crate) fn bars(stages: &[(&str, f64)], total_ms: f64) {
    let mut text = String::new();
    for (name, took) in stages {
        let share = if total_ms > 0.0 { took / total_ms } else { 0.0 };
        text.push_str(&format!("{name:>16} {took:9.2} ms  {}\n", bar(share)));
    }
    text.push_str(&format!("{:>16} {total_ms:9.2} ms\n", "total"));
    // Bars are for people who look on; if nobody does, nothing is lost.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The stages by name, in their order.
pub(crate) fn stages(timings: &TimingsView) -> Vec<(&'static str, f64)> {
    vec![
        ("admit", timings.admit_ms),
        ("record", timings.record_ms),
        ("network", timings.network_ms),
        ("disk", timings.disk_ms),
        ("VMM spawn", timings.vmm_spawn_ms),
        ("kernel to agent", timings.kernel_to_agent_ms),
        ("restore", timings.restore_ms),
        ("agent init", timings.agent_init_ms),
        ("start up", timings.start_up_ms),
    ]
}

/// A bar of eighths.
fn bar(share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * BAR_WIDTH * 8.0).round();
    let (whole, part) = ((eighths / 8.0).floor(), eighths % 8.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 40, and 0 to 7")]
    let (whole, part) = (whole as usize, part as usize);
    "█".repeat(whole) + EIGHTHS[part]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_grows_with_its_share_and_never_past_its_width() {
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(1.0).chars().count(), 40);
        assert_eq!(bar(7.5).chars().count(), 40);
        assert_eq!(bar(0.5), "█".repeat(20));
    }
}
