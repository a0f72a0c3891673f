//! `flames doctor`: what this machine has, what it lacks, and how to mend that. Needs no daemon.

use super::Context;
use crate::output;
use flames_node::doctor::{DoctorConfig, Finding, FindingStatus, examine};
use indicatif::ProgressBar;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) async fn run(context: &Context) -> anyhow::Result<ExitCode> {
    let config = DoctorConfig {
        data_dir: context.places.data.clone(),
        assets_dir: context.places.assets.clone(),
        disk_reserve_bytes: context.config.node.reserve_disk_mib << 20,
        firecracker: context.config.vmm.firecracker.clone(),
        uplink: context.config.network.uplink(),
    };
    let bar = ProgressBar::new_spinner().with_message("measuring what KVM can do");
    bar.enable_steady_tick(Duration::from_millis(100));
    let findings = examine(&config).await;
    bar.finish_and_clear();
    if context.global.json {
        output::json(&findings)?;
    } else {
        findings.iter().try_for_each(print)?;
    }
    let usable = findings.iter().all(|finding| finding.status != FindingStatus::Fail);
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(finding: &Finding) -> anyhow::Result<()> {
    let judgement = match finding.status {
        FindingStatus::Ok => "ok  ",
        FindingStatus::Warn => "warn",
        FindingStatus::Fail => "FAIL",
    };
    output::line(format!("{judgement}  {:12} {}", finding.id, finding.found))?;
    match &finding.mend {
        Some(mend) => output::line(format!("{:18} mend: {mend}", "")),
        None => Ok(()),
    }
}
