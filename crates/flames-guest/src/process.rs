//! `process.Process`: the processes of a sandbox, as JSON on the wire.
//!
//! Field names, defaults and encodings are proto3 JSON. A `oneof` is a struct of options of which one is set.
//!
//! A signal reaches the one process it names, not what that process started: each started process leads a
//! session of its own, so that a caller who wants the whole tree can signal the group from inside.

use crate::json::{self, is_zero, proto_enum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Path of a method of this service, for example `/process.Process/Start`.
pub const SERVICE: &str = "process.Process";

/// What to run. An empty `cwd` means the default working directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProcessConfig {
    /// A path, or a name that is looked up in `PATH` of the new process.
    pub cmd: String,
    /// Arguments, without the name of the program.
    #[serde(skip_serializing_if = "is_zero")]
    pub args: Vec<String>,
    /// Set over the login and the sandbox environment.
    #[serde(skip_serializing_if = "is_zero")]
    pub envs: BTreeMap<String, String>,
    /// Working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

/// Names a process by its id or by the tag it was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProcessSelector {
    /// The process id inside the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The caller's own name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl ProcessSelector {
    /// The process with this id.
    pub fn pid(pid: u32) -> Self {
        Self { pid: Some(pid), tag: None }
    }
}

/// Asks for a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pty {
    /// Its size; absent means 80 columns by 24 rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<PtySize>,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PtySize {
    /// Width.
    #[serde(skip_serializing_if = "is_zero")]
    pub cols: u32,
    /// Height.
    #[serde(skip_serializing_if = "is_zero")]
    pub rows: u32,
}

/// `Start`: runs a process and streams its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StartRequest {
    /// What to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessConfig>,
    /// Run it on a terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pty: Option<Pty>,
    /// A name to select it by later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Whether its standard input stays open for `SendInput`; absent means that it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<bool>,
}

/// `Connect`: streams the events of a running process from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConnectRequest {
    /// Which one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessSelector>,
}

/// One message of the streams of `Start` and `Connect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EventResponse {
    /// What happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<ProcessEvent>,
}

/// What happened to a process: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProcessEvent {
    /// First of every stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<StartEvent>,
    /// Output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<DataEvent>,
    /// Last of every stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<EndEvent>,
    /// Nothing happened for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<Empty>,
}

/// A message without fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Empty {}

/// The process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StartEvent {
    /// Its id inside the guest.
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: u32,
}

/// Output of a process: exactly one field is set, with at most 32 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DataEvent {
    /// Standard output.
    #[serde(with = "json::bytes", skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Vec<u8>>,
    /// Standard error.
    #[serde(with = "json::bytes", skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Vec<u8>>,
    /// Output of a terminal.
    #[serde(with = "json::bytes", skip_serializing_if = "Option::is_none")]
    pub pty: Option<Vec<u8>>,
}

/// How a process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndEvent {
    /// Its exit code, or -1 when a signal ended it.
    #[serde(skip_serializing_if = "is_zero")]
    pub exit_code: i32,
    /// Whether it ended by itself.
    #[serde(skip_serializing_if = "is_zero")]
    pub exited: bool,
    /// `exit status 3` or `signal: killed`.
    #[serde(skip_serializing_if = "is_zero")]
    pub status: String,
    /// The same text, when it did not end with code 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl EndEvent {
    /// The process left with this code.
    pub fn exited(code: i32) -> Self {
        let status = format!("exit status {code}");
        let error = (code != 0).then(|| status.clone());
        Self { exit_code: code, exited: true, status, error }
    }

    /// A signal ended the process.
    pub fn killed(signal: i32) -> Self {
        let status = format!("signal: {}", signal_text(signal));
        Self { exit_code: -1, exited: false, error: Some(status.clone()), status }
    }
}

/// The words that clients know for a signal.
fn signal_text(signal: i32) -> std::borrow::Cow<'static, str> {
    let text = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        24 => "CPU time limit exceeded",
        25 => "file size limit exceeded",
        31 => "bad system call",
        other => return format!("signal {other}").into(),
    };
    text.into()
}

/// Answer of `List`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListResponse {
    /// Running processes that the agent started, by ascending id.
    #[serde(skip_serializing_if = "is_zero")]
    pub processes: Vec<ProcessInfo>,
}

/// A running process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProcessInfo {
    /// What was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<ProcessConfig>,
    /// Its id inside the guest.
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: u32,
    /// The caller's own name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// `Update`: changes the size of a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UpdateRequest {
    /// Which process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessSelector>,
    /// The new size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pty: Option<Pty>,
}

/// Bytes for a process: one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProcessInput {
    /// For its standard input.
    #[serde(with = "json::bytes", skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Vec<u8>>,
    /// For its terminal.
    #[serde(with = "json::bytes", skip_serializing_if = "Option::is_none")]
    pub pty: Option<Vec<u8>>,
}

/// `SendInput`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SendInputRequest {
    /// Which process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessSelector>,
    /// What to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<ProcessInput>,
}

/// One message of `StreamInput`: first `start`, then any number of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StreamInputRequest {
    /// Names the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<StreamInputStart>,
    /// Bytes for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<StreamInputData>,
    /// Nothing, for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<Empty>,
}

/// First message of `StreamInput`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StreamInputStart {
    /// Which process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessSelector>,
}

/// Later message of `StreamInput`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StreamInputData {
    /// What to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<ProcessInput>,
}

/// `SendSignal`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SendSignalRequest {
    /// Which process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessSelector>,
    /// Which signal.
    #[serde(skip_serializing_if = "is_zero")]
    pub signal: Signal,
}

/// `CloseStdin`: the process reads the end of its input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CloseStdinRequest {
    /// Which process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessSelector>,
}

proto_enum! {
    /// The signals that may be sent.
    Signal {
        /// Not one: refused.
        #[default]
        Unspecified = 0 "SIGNAL_UNSPECIFIED",
        /// Ask the process to end.
        Terminate = 15 "SIGNAL_SIGTERM",
        /// End it.
        Kill = 9 "SIGNAL_SIGKILL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_str, to_string};

    #[test]
    fn end_events_use_the_words_that_clients_show() {
        assert_eq!(
            to_string(&EndEvent::exited(3)).unwrap(),
            r#"{"exitCode":3,"exited":true,"status":"exit status 3","error":"exit status 3"}"#
        );
        assert_eq!(to_string(&EndEvent::exited(0)).unwrap(), r#"{"exited":true,"status":"exit status 0"}"#);
        assert_eq!(
            to_string(&EndEvent::killed(9)).unwrap(),
            r#"{"exitCode":-1,"status":"signal: killed","error":"signal: killed"}"#
        );
    }

    #[test]
    fn zero_values_are_left_out_and_read_back() {
        let event =
            EventResponse { event: Some(ProcessEvent { keepalive: Some(Empty {}), ..Default::default() }) };
        assert_eq!(to_string(&event).unwrap(), r#"{"event":{"keepalive":{}}}"#);
        assert_eq!(from_str::<StartEvent>("{}").unwrap().pid, 0);
    }

    #[test]
    fn bytes_are_base64_with_or_without_padding() {
        for text in [r#"{"stdin":"aGk="}"#, r#"{"stdin":"aGk"}"#] {
            assert_eq!(from_str::<ProcessInput>(text).unwrap().stdin.unwrap(), b"hi");
        }
        assert!(from_str::<ProcessInput>(r#"{"stdin":"%%"}"#).is_err());
    }

    #[test]
    fn signals_are_read_by_name_or_number_and_unknown_ones_are_refused() {
        for text in [r#""SIGNAL_SIGKILL""#, "9"] {
            assert_eq!(from_str::<Signal>(text).unwrap(), Signal::Kill);
        }
        assert_eq!(to_string(&Signal::Terminate).unwrap(), r#""SIGNAL_SIGTERM""#);
        assert!(from_str::<Signal>("1").is_err());
        assert!(from_str::<Signal>(r#""SIGKILL""#).is_err());
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let request: StartRequest = from_str(r#"{"process":{"cmd":"ls","new":1},"later":[]}"#).unwrap();
        assert_eq!(request.process.unwrap().cmd, "ls");
    }
}
