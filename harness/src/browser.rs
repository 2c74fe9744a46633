//! A real browser with one page, driven through chromedriver, in a container.
//!
//! On the machine itself, Chromium would end its requests with `ERR_NETWORK_CHANGED` whenever a network of the engine comes or
//! goes.

use std::{env, fs, sync::Once, time::Duration};

pub use fantoccini::key::Key;
use fantoccini::{
    Client, ClientBuilder,
    error::CmdError,
    wd::{Capabilities, WebDriverCompatibleCommand},
};
use hyper::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::runtime::{self, Runtime};
use url::{ParseError, Url};

use crate::{
    container::Container,
    http,
    tools::{docker, root},
    trial::Missing,
    wait,
};

const IMAGE: &str = "harness-browser";

/// Time for chromedriver to listen.
const START: Duration = Duration::from_secs(20);

/// What the browser resolves to this machine.
const THIS_MACHINE: &str = "MAP localhost host.docker.internal, MAP 127.0.0.1 host.docker.internal";

/// Default time for a page to show something.
const SHOWN: Duration = Duration::from_secs(5);

/// Rule sets of axe-core: WCAG 2.2, levels A and AA.
const WCAG: [&str; 5] = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];

/// What is missing to check accessibility, if anything.
pub fn axe_missing() -> Option<Missing> {
    const NONE: &str = "no axe-core: AXE is not set to the path of its axe.min.js";
    env::var_os("AXE")
        .is_none()
        .then_some(Missing::Installable(NONE))
}

/// A headless browser window.
pub struct Browser {
    runtime: Runtime,
    client: Client,
    /// Dropped last.
    _container: Container,
}

impl Browser {
    /// Opens `url`, 1280 pixels wide, in light colours.
    #[track_caller]
    pub fn open(url: &str) -> Self {
        static BUILD: Once = Once::new();
        BUILD.call_once(|| {
            let folder = root().join("harness/browser");
            docker(&[
                "build",
                "--quiet",
                "--tag",
                IMAGE,
                &folder.display().to_string(),
            ]);
        });
        let options = [
            "--publish=127.0.0.1::9515",
            "--add-host=host.docker.internal:host-gateway",
            // Default 64 MB, which Chromium's pages exhaust.
            "--shm-size=512m",
        ];
        let container = Container::run_command("browser", IMAGE, &options, &[]);
        let address = docker(&["port", &container.name, "9515/tcp"]);
        let driver = format!("http://{address}");
        let ready = format!("{driver}/status");
        wait::until(START, || {
            http::get(&ready).map_err(|error| error.to_string())
        });

        let capabilities = json!({
            "goog:chromeOptions": {
                "args": [
                    "--headless",
                    // In a container, it cannot create its sandbox.
                    "--no-sandbox",
                    format!("--host-resolver-rules={THIS_MACHINE}"),
                    "--disable-gpu",
                    "--disable-quic",
                    "--no-first-run",
                    "--disable-background-networking",
                    "--disable-component-update",
                    "--disable-sync",
                ],
            },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else {
            unreachable!("it is an object");
        };
        let capabilities: Capabilities = capabilities.into_iter().collect();
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let client = runtime.block_on(
            ClientBuilder::new(HttpConnector::new())
                .capabilities(capabilities)
                .connect(&driver),
        );
        let client = client.expect("a session of chromedriver");
        let browser = Self {
            runtime,
            client,
            _container: container,
        };
        browser.size(1280, 900);
        browser.media("light", "no-preference");
        browser.go(url);
        browser
    }

    #[track_caller]
    pub fn go(&self, url: &str) {
        self.wait_for(self.client.goto(url));
    }

    /// Sets the size of the viewport, in CSS pixels.
    #[track_caller]
    pub fn size(&self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", size);
    }

    /// Sets `prefers-color-scheme` and `prefers-reduced-motion`.
    #[track_caller]
    pub fn media(&self, color_scheme: &str, reduced_motion: &str) {
        let features = json!([
            {"name": "prefers-color-scheme", "value": color_scheme},
            {"name": "prefers-reduced-motion", "value": reduced_motion},
        ]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Minimizes the window, which hides the page.
    #[track_caller]
    pub fn minimize(&self) {
        self.wait_for(self.client.minimize_window());
    }

    /// Shows the window again.
    #[track_caller]
    pub fn restore(&self) {
        self.wait_for(self.client.maximize_window());
    }

    /// Runs a function body in the page and returns its value.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.wait_for(self.client.execute(script, vec![]))
    }

    /// The text of each element that `selector` selects.
    #[track_caller]
    pub fn texts(&self, selector: &str) -> Vec<String> {
        let script = format!(
            "return [...document.querySelectorAll({})].map((element) => element.textContent)",
            json!(selector)
        );
        serde_json::from_value(self.run(&script)).expect("texts")
    }

    /// The text of the only element that `selector` selects.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let texts = self.texts(selector);
        let [text] = texts.as_slice() else {
            panic!("{selector}: expected one element, got {texts:?}");
        };
        text.clone()
    }

    /// Waits for the only element that `selector` selects to have this text.
    #[track_caller]
    pub fn shows(&self, selector: &str, text: &str) {
        self.shows_within(SHOWN, selector, text);
    }

    #[track_caller]
    pub fn shows_within(&self, limit: Duration, selector: &str, text: &str) {
        wait::until(limit, || match self.text(selector) {
            shown if shown == text => Ok(()),
            shown => Err(format!(
                "{selector}: {shown:?}, not {text:?}; console: {:?}",
                self.console()
            )),
        });
    }

    /// Presses and releases a key.
    #[track_caller]
    pub fn press(&self, key: Key) {
        let focused = self.wait_for(self.client.active_element());
        self.wait_for(focused.send_keys(&char::from(key).to_string()));
    }

    /// Console messages since the last call.
    #[track_caller]
    pub fn console(&self) -> Vec<String> {
        let log = self.chrome("se/log", json!({"type": "browser"}));
        let entries = log.as_array().expect("entries").iter();
        entries.map(|entry| entry["message"].to_string()).collect()
    }

    /// Accessibility violations that axe-core finds.
    #[track_caller]
    pub fn accessibility_violations(&self) -> Vec<Value> {
        let path = env::var_os("AXE").expect("axe-core");
        let axe = fs::read_to_string(&path);
        self.run(&axe.unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        let run = format!(
            "const done = arguments[0]; axe.run({{ runOnly: {} }}).then(done)",
            json!(WCAG)
        );
        let result = self.wait_for(self.client.execute_async(&run, vec![]));
        assert!(
            result["passes"]
                .as_array()
                .is_some_and(|passes| !passes.is_empty()),
            "it checked nothing"
        );
        let violations = result["violations"].as_array().expect("violations");
        let brief = |violation: &Value| {
            let nodes = violation["nodes"].as_array().into_iter().flatten();
            let nodes: Vec<_> = nodes.map(|node| &node["html"]).collect();
            json!({"rule": violation["id"], "help": violation["help"], "nodes": nodes})
        };
        violations.iter().map(brief).collect()
    }

    /// A screenshot as a PNG file.
    #[track_caller]
    pub fn screenshot(&self) -> Vec<u8> {
        self.wait_for(self.client.screenshot())
    }

    /// A command of the DevTools protocol.
    #[track_caller]
    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.chrome("goog/cdp/execute", body)
    }

    #[track_caller]
    fn chrome(&self, path: &'static str, body: Value) -> Value {
        self.wait_for(self.client.issue_cmd(ChromeCommand { path, body }))
    }

    #[track_caller]
    fn wait_for<T>(&self, command: impl Future<Output = Result<T, CmdError>>) -> T {
        match self.runtime.block_on(command) {
            Ok(value) => value,
            Err(error) => panic!("the browser: {error}"),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Err(error) = self.runtime.block_on(self.client.clone().close()) {
            eprintln!("the browser: {error}");
        }
    }
}

/// A command of chromedriver that is not in the WebDriver standard.
#[derive(Debug)]
struct ChromeCommand {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for ChromeCommand {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        let session = session.unwrap_or_default();
        base.join(&format!("session/{session}/{}", self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}
