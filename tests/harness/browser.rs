//! A real browser: Debian's Chromium without a window, driven through chromedriver by WebDriver (W3C), which is JSON
//! over HTTP.
//!
//! The client is written here because the tests need a dozen commands only, and `ureq` is a dependency already. The
//! crates for WebDriver would add an asynchronous HTTP client.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::thread::panicking;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::eventually;
use super::process::{Process, free_address};

/// The limit for one command, ample on a busy machine.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for what a page will show.
const LOOK_PERIOD: Duration = Duration::from_millis(30);
/// An element in WebDriver's JSON is an object with this member.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys that have no character, as WebDriver names them.
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const BACKSPACE: &str = "\u{e003}";

/// A browser with an empty profile. Dropping it ends all of its processes, and shows what the page logged if the test
/// has failed.
pub struct Browser {
    driver: Process,
    /// Kept open, so that chromedriver never writes into a closed pipe.
    _output: BufReader<ChildStdout>,
    agent: ureq::Agent,
    /// `http://127.0.0.1:PORT/session/ID`.
    session: String,
    folder: TempDir,
}

impl Browser {
    /// For a visitor who reads English.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_in("en-US")
    }

    /// For a visitor whose browser names this language.
    #[track_caller]
    pub fn start_in(language: &str) -> Self {
        let folder = TempDir::with_prefix("spikegate-browser-").unwrap();
        let (driver, output, port) = driver_in(folder.path());
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(COMMAND_PATIENCE))
            .http_status_as_error(false)
            .build()
            .new_agent();
        let mut browser = Self { driver, _output: output, agent, session: String::new(), folder };

        let profile = browser.folder.path().join("profile");
        let mut arguments = vec![format!("--user-data-dir={}", profile.display()), format!("--accept-lang={language}")];
        arguments.extend(
            [
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
                "--window-size=1100,1000",
            ]
            .map(str::to_owned),
        );
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": chromium(), "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let server = format!("http://127.0.0.1:{port}/session");
        let begun = browser.send("POST", &server, Some(&capabilities));
        browser.session = format!("{server}/{}", begun["sessionId"].as_str().unwrap());
        browser
    }

    #[track_caller]
    pub fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    #[track_caller]
    pub fn reload(&self) {
        self.post("refresh", &json!({}));
    }

    /// Runs a script in the page, as the body of a function, and gives what it returns.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.run_with(script, &[])
    }

    /// The same with `arguments`.
    #[track_caller]
    pub fn run_with(&self, script: &str, arguments: &[Value]) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// Runs a script in every page before the page's own.
    #[track_caller]
    pub fn run_first(&self, script: &str) {
        self.devtools("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": script }));
    }

    /// A command of Chromium's own protocol.
    #[track_caller]
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// As on a phone of this width, in CSS pixels.
    #[track_caller]
    pub fn width(&self, pixels: u32) {
        let metrics = json!({ "width": pixels, "height": 800, "deviceScaleFactor": 2, "mobile": true });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// As a visitor who wants colours of this scheme, `light` or `dark`, and nothing to move.
    #[track_caller]
    pub fn prefer(&self, scheme: &str) {
        let wishes = [("prefers-color-scheme", scheme), ("prefers-reduced-motion", "reduce")];
        let features = wishes.map(|(name, value)| json!({ "name": name, "value": value }));
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// Clicks as a mouse does; an element that cannot be clicked is a fault.
    #[track_caller]
    pub fn click(&self, css: &str) {
        self.post(&format!("element/{}/click", self.element(css)), &json!({}));
    }

    /// Types a value in the place of the one before.
    #[track_caller]
    pub fn fill(&self, css: &str, text: &str) {
        let element = self.element(css);
        self.post(&format!("element/{element}/clear"), &json!({}));
        self.post(&format!("element/{element}/value"), &json!({ "text": text }));
    }

    /// Presses keys one after the other, wherever the focus is.
    #[track_caller]
    pub fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() })))
            .collect();
        self.post("actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] }));
    }

    /// The text of an element as it is shown; empty while it is hidden.
    #[track_caller]
    pub fn text(&self, css: &str) -> String {
        let text = self.run_with("return document.querySelector(arguments[0])?.innerText ?? null", &[json!(css)]);
        text.as_str().unwrap_or_else(|| panic!("there is no {css}")).to_owned()
    }

    /// Waits until an element is there and shows this text, among other text perhaps.
    #[track_caller]
    pub fn shows(&self, css: &str, text: &str) {
        let script = "const element = document.querySelector(arguments[0]); \
            return element?.checkVisibility() && element.innerText.includes(arguments[1])";
        self.until_with(&format!("{css} shows {text:?}"), script, &[json!(css), json!(text)]);
    }

    /// Waits until a script, as the body of a function, returns true.
    #[track_caller]
    pub fn until(&self, what: &str, script: &str) {
        self.until_with(what, script, &[]);
    }

    #[track_caller]
    fn until_with(&self, what: &str, script: &str, arguments: &[Value]) {
        eventually(what, || {
            let is_so = self.run_with(script, arguments) == true;
            if !is_so {
                // Each look is work for three processes.
                std::thread::sleep(LOOK_PERIOD);
            }
            is_so.then_some(())
        });
    }

    /// Role and name of an element in the accessibility tree.
    #[track_caller]
    pub fn accessible(&self, css: &str) -> (String, String) {
        let element = self.element(css);
        let told = |what: &str| {
            let value = self.send("GET", &format!("{}/element/{element}/computed{what}", self.session), None);
            value.as_str().unwrap_or_default().to_owned()
        };
        (told("role"), told("label"))
    }

    /// Minimizes the window, which hides the page.
    #[track_caller]
    pub fn minimize(&self) {
        self.post("window/minimize", &json!({}));
        self.until("the page is hidden", "return document.visibilityState === 'hidden'");
    }

    /// Brings the window back.
    #[track_caller]
    pub fn restore(&self) {
        self.post("window/rect", &json!({ "width": 1100, "height": 1000 }));
        self.until("the page is visible", "return document.visibilityState === 'visible'");
    }

    /// Leaves a picture of the whole page at `target/tmp/page/NAME.png`, for people to look at.
    #[track_caller]
    pub fn picture(&self, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
        std::fs::create_dir_all(&folder).unwrap();
        let taken = self.devtools("Page.captureScreenshot", &json!({ "captureBeyondViewport": true }));
        let bytes = from_base64(taken["data"].as_str().unwrap());
        std::fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }

    /// What the page logged, and the browser about it: errors of scripts, and what the page's policy forbade. That a
    /// request was refused or failed is no fault of the page and left out.
    #[track_caller]
    pub fn faults(&self) -> Vec<String> {
        let logged = self.post("se/log", &json!({ "type": "browser" }));
        let entries = logged.as_array().unwrap().iter().filter(|entry| entry["source"] != "network");
        entries.map(|entry| format!("{} {}", entry["level"], entry["message"])).collect()
    }

    #[track_caller]
    fn element(&self, css: &str) -> String {
        let found = self.post("element", &json!({ "using": "css selector", "value": css }));
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn post(&self, command: &str, body: &Value) -> Value {
        self.send("POST", &format!("{}/{command}", self.session), Some(body))
    }

    #[track_caller]
    fn send(&self, method: &str, url: &str, body: Option<&Value>) -> Value {
        match self.try_send(method, url, body) {
            Ok(value) => value,
            Err(problem) => panic!("{method} {url} {}: {problem}", body.unwrap_or(&Value::Null)),
        }
    }

    /// One command; gives the value of its answer.
    fn try_send(&self, method: &str, url: &str, body: Option<&Value>) -> Result<Value, String> {
        let answer = match (method, body) {
            ("POST", Some(body)) => self.agent.post(url).send_json(body),
            ("DELETE", _) => self.agent.delete(url).call(),
            _ => self.agent.get(url).call(),
        };
        let mut answer = answer.map_err(|error| error.to_string())?;
        let value = answer.body_mut().with_config().limit(64 << 20).read_json::<Value>();
        let value = value.map_err(|error| error.to_string())?["value"].take();
        match value["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", value["message"].as_str().unwrap_or_default())),
            None => Ok(value),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            if panicking() {
                let log =
                    self.try_send("POST", &format!("{}/se/log", self.session), Some(&json!({ "type": "browser" })));
                let script = json!({ "script": "return document.body.innerText", "args": [] });
                let text = self.try_send("POST", &format!("{}/execute/sync", self.session), Some(&script));
                eprintln!("---- the page showed:\n{text:?}\n---- and the browser logged:\n{log:?}\n----");
            }
            // It ends Chromium in good order; what is left then is ended below.
            let _ = self.try_send("DELETE", &self.session, None);
        }
        let group = format!("-{}", self.driver.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    }
}

/// Starts chromedriver on a port of ours. Left to itself (`--port=0`) it takes a free one on the one loopback address
/// and gives up if the same one is taken on the other, which happens beside thousands of connections of other tests; so
/// a port may be taken just now, and then another is tried.
#[track_caller]
fn driver_in(folder: &Path) -> (Process, BufReader<ChildStdout>, u16) {
    const TRIES: usize = 10;
    let mut said = String::new();
    for _ in 0..TRIES {
        let port = free_address().port();
        let mut command = Command::new("chromedriver");
        // Chromium stays in the group of its driver, so that the group is all there is to be ended.
        command.arg(format!("--port={port}")).current_dir(folder).stdout(Stdio::piped()).process_group(0);
        let mut driver = Process::start("chromedriver", &mut command, folder);
        let mut output = BufReader::new(driver.stdout());
        if has_started(&mut output) {
            return (driver, output, port);
        }
        said = driver.log();
    }
    panic!("chromedriver does not start:\n{said}");
}

fn has_started(output: &mut impl BufRead) -> bool {
    output.lines().map_while(Result::ok).any(|line| line.contains("was started successfully"))
}

fn chromium() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|file| file.exists());
    found.expect("chromium is needed (Debian: chromium, chromium-driver)")
}

/// RFC 4648, 4, as WebDriver gives pictures.
fn from_base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        (held, bits) = (held << 6 | u32::from(value(byte)), bits + 6);
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    bytes
}
