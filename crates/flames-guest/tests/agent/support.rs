//! Starts an agent and speaks to it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flames_guest::frame::{Frame, FrameDecoder, MAX_PAYLOAD, encode};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub const CONTROL: &str = "control-token-of-the-tests";
pub const TOKEN: &str = "access-token-of-the-tests";

/// Where the agent's standard error goes, below its root.
const SAID: &str = "agent.log";

/// An agent with a user table and home directories of its own; gone when dropped.
pub struct Guest {
    pub child: Child,
    pub url: String,
    pub http: reqwest::Client,
    pub root: tempfile::TempDir,
}

/// The user `user`: another one than the tests' own, where that is possible.
pub fn uid() -> u32 {
    if is_root() { 54_321 } else { own_uid() }
}

pub fn is_root() -> bool {
    own_uid() == 0
}

fn own_uid() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

impl Guest {
    /// An agent after its first init.
    pub async fn start() -> Self {
        let guest = Self::start_raw(&[]);
        let (status, answer) = guest.init(json!({"accessToken": TOKEN, "envVars": {"FROM_INIT": "1"}})).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        guest
    }

    /// An agent before its first init; `wrapper` is what runs it.
    pub fn start_raw(wrapper: &[String]) -> Self {
        let root = tempfile::tempdir().unwrap();
        prepare(root.path());
        let agent = [
            env!("CARGO_BIN_EXE_flames-guest").to_owned(),
            "serve".into(),
            "--port".into(),
            "0".into(),
            "--control-token-file".into(),
            root.path().join("token").to_string_lossy().into_owned(),
            "--root".into(),
            root.path().to_string_lossy().into_owned(),
        ];
        let words: Vec<String> = wrapper.iter().cloned().chain(agent).collect();
        let said = fs::File::create(root.path().join(SAID)).unwrap();
        let mut command = Command::new(&words[0]);
        let mut child = command.args(&words[1..]).stdout(Stdio::piped()).stderr(said).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { child, url: format!("http://{address}"), http, root }
    }

    /// Memory that the agent holds.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The user's home.
    pub fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    pub fn path(&self, name: &str) -> String {
        self.home().join(name).to_string_lossy().into_owned()
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.url)).header("X-Access-Token", TOKEN)
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url)).header("X-Access-Token", TOKEN)
    }

    pub async fn init(&self, message: Value) -> (StatusCode, Value) {
        let request =
            self.http.post(format!("{}/flames/v1/init", self.url)).header("X-Flames-Control", CONTROL);
        answer(request.json(&message)).await
    }

    /// A unary call.
    pub async fn call(&self, method: &str, message: Value) -> (StatusCode, Value) {
        answer(self.post(&format!("/{method}")).json(&message)).await
    }

    /// A unary call that must succeed.
    pub async fn ok(&self, method: &str, message: Value) -> Value {
        let (status, answer) = self.call(method, message).await;
        assert_eq!(status, StatusCode::OK, "{method}: {answer}");
        answer
    }

    /// A unary call that must fail; gives the code.
    pub async fn error(&self, method: &str, message: Value) -> String {
        let (status, answer) = self.call(method, message).await;
        assert!(!status.is_success(), "{method}: {answer}");
        answer["code"].as_str().unwrap().to_owned()
    }

    /// A streaming call.
    pub async fn stream(&self, method: &str, message: Value, headers: &[(&str, &str)]) -> Events {
        let body = encode(0, &serde_json::to_vec(&message).unwrap());
        self.stream_raw(method, body.to_vec(), headers).await
    }

    pub async fn stream_raw(&self, method: &str, body: Vec<u8>, headers: &[(&str, &str)]) -> Events {
        let mut request =
            self.post(&format!("/{method}")).header("Content-Type", "application/connect+json").body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Events { response, decoder: FrameDecoder::new(MAX_PAYLOAD) }
    }

    /// Starts a shell command.
    pub async fn sh(&self, command: &str) -> Events {
        self.sh_with(command, &[]).await
    }

    pub async fn sh_with(&self, command: &str, headers: &[(&str, &str)]) -> Events {
        let message = json!({"process": {"cmd": "/bin/sh", "args": ["-c", command]}});
        self.stream("process.Process/Start", message, headers).await
    }

    /// Runs a shell command to its end; gives its output.
    pub async fn output_of(&self, command: &str) -> String {
        self.sh(command).await.collect().await.stdout_text()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        let said = fs::read_to_string(self.root.path().join(SAID)).unwrap_or_default();
        eprint!("{said}");
        // Here a panic ends a connection; in a guest it ends the machine.
        assert!(std::thread::panicking() || !said.contains("panicked at"), "the agent panicked");
    }
}

fn prepare(root: &Path) {
    let home = root.join("home");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir(&home).unwrap();
    fs::write(root.join("token"), format!("{CONTROL}\n")).unwrap();
    let (uid, home) = (uid(), home.display());
    let passwd = format!("root:x:0:0::/root:/bin/sh\nuser:x:{uid}:{uid}::{home}:/bin/sh\n");
    fs::write(root.join("etc/passwd"), passwd).unwrap();
    fs::write(root.join("etc/group"), format!("user:x:{uid}:\nextra:x:54322:user\n")).unwrap();
    if is_root() {
        chown(root.join("home"), Some(uid), Some(uid)).unwrap();
        fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
}

pub async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Events of a stream as they come.
pub struct Events {
    response: Response,
    decoder: FrameDecoder,
}

impl Events {
    pub async fn next_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            match self.response.chunk().await.unwrap() {
                Some(chunk) => self.decoder.push(&chunk),
                None => return None,
            }
        }
    }

    /// The next event, without its envelope.
    pub async fn next(&mut self) -> Value {
        let frame = self.next_frame().await.unwrap();
        let mut message: Value = serde_json::from_slice(&frame.payload).unwrap();
        if frame.is_end() { message } else { message["event"].take() }
    }

    /// The first event.
    pub async fn pid(&mut self) -> u64 {
        let event = self.next().await;
        event["start"]["pid"].as_u64().unwrap_or_else(|| panic!("no start: {event}"))
    }

    /// Waits until the output so far ends with `text`.
    pub async fn wait_for(&mut self, text: &str) {
        let mut got = String::new();
        while !got.ends_with(text) {
            let event = self.next().await;
            let bytes = STANDARD
                .decode(event["data"]["stdout"].as_str().unwrap_or_else(|| panic!("{event}")))
                .unwrap();
            got.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// The connection, with what was not read.
    pub fn into_response(self) -> Response {
        self.response
    }

    /// Reads until the connection breaks; false if the stream ended in order.
    pub async fn is_cut(&mut self) -> bool {
        loop {
            match self.response.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Everything, to the end of the stream.
    pub async fn collect(mut self) -> Story {
        let mut story = Story::default();
        while let Some(frame) = self.next_frame().await {
            let message: Value = serde_json::from_slice(&frame.payload).unwrap();
            story.take(frame.is_end(), &message);
        }
        story
    }
}

/// What a stream told.
#[derive(Debug, Default)]
pub struct Story {
    /// Names of the events in their order; output is told once.
    pub order: Vec<String>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub largest: usize,
    pub end: Value,
    /// The error of the last frame.
    pub error: Value,
}

impl Story {
    pub fn stdout_text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    fn take(&mut self, is_last: bool, message: &Value) {
        if is_last {
            self.order.push("last".into());
            self.error = message["error"].clone();
            return;
        }
        let (name, event) = message["event"].as_object().unwrap().iter().next().unwrap();
        if name == "end" {
            self.end = event.clone();
        }
        for (field, to) in [("stdout", &mut self.stdout), ("stderr", &mut self.stderr)] {
            let bytes = STANDARD.decode(event[field].as_str().unwrap_or_default()).unwrap();
            self.largest = self.largest.max(bytes.len());
            to.extend(bytes);
        }
        if self.order.last() != Some(name) {
            self.order.push(name.clone());
        }
    }
}
