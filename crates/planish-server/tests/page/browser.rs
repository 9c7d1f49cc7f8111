//! A browser without a window, driven over WebDriver.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(30);
/// WebDriver's name of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";
pub const UP: &str = "\u{e013}";
pub const RIGHT: &str = "\u{e014}";

pub struct Browser {
    driver: Child,
    agent: ureq::Agent,
    session: String,
}

/// A program that `.ci/page` names.
fn program(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} must name a program: .ci/page sees to it"))
}

impl Browser {
    pub fn open(url: &str) -> Browser {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let driver = Command::new(program("PLANISH_CHROMEDRIVER"))
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .spawn()
            .expect("chromedriver");
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let mut browser = Browser {
            driver,
            agent: config.build().into(),
            session: format!("http://127.0.0.1:{port}"),
        };
        let start = Instant::now();
        while browser.agent.get(format!("{}/status", browser.session)).call().is_err() {
            assert!(start.elapsed() < PATIENCE, "chromedriver does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {
                "binary": program("PLANISH_CHROMIUM"),
                "args": ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,800"],
            },
        }}});
        let session = browser.post("/session", &capabilities);
        browser.session += &format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser.post("/url", &json!({"url": url}));
        browser
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.session);
        let answer = self.agent.post(url).send_json(body).unwrap();
        Browser::value(path, answer)
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.agent.get(format!("{}{path}", self.session)).call().unwrap();
        Browser::value(path, answer)
    }

    fn value(path: &str, mut answer: ureq::http::Response<ureq::Body>) -> Value {
        let status = answer.status();
        let mut body: Value = answer.body_mut().with_config().limit(64 << 20).read_json().unwrap();
        assert!(status.is_success(), "{path}: {body}");
        body["value"].take()
    }

    /// Runs the body of a function in the page; a promise is waited for.
    pub fn script(&self, body: &str) -> Value {
        self.post("/execute/sync", &json!({"script": body, "args": []}))
    }

    /// Waits until an expression is true.
    pub fn until(&self, expression: &str) {
        let start = Instant::now();
        while self.script(&format!("return Promise.resolve({expression}).then(Boolean)")) != json!(true) {
            assert!(start.elapsed() < PATIENCE, "never: {expression}\n{}", self.text("body"));
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    pub fn text(&self, selector: &str) -> String {
        let text = self.script(&format!(
            "return document.querySelector({selector:?})?.textContent ?? ''"
        ));
        text.as_str().unwrap().to_owned()
    }

    pub fn count(&self, selector: &str) -> u64 {
        let count = self.script(&format!("return document.querySelectorAll({selector:?}).length"));
        count.as_u64().unwrap()
    }

    fn element(&self, selector: &str) -> String {
        let found = self.post("/element", &json!({"using": "css selector", "value": selector}));
        format!("/element/{}", found[ELEMENT].as_str().unwrap())
    }

    pub fn click(&self, selector: &str) {
        self.post(&format!("{}/click", self.element(selector)), &json!({}));
    }

    pub fn click_button(&self, words: &str) {
        self.script(&format!(
            "[...document.querySelectorAll('button')].filter((b) => b.textContent === {words:?} && b.checkVisibility()).at(-1).click()"
        ));
    }

    pub fn keys(&self, selector: &str, keys: &str) {
        self.post(&format!("{}/value", self.element(selector)), &json!({"text": keys}));
    }

    /// Keys to whatever has the focus.
    pub fn keys_to_focus(&self, keys: &str) {
        let found = self.get("/element/active");
        let path = format!("/element/{}/value", found[ELEMENT].as_str().unwrap());
        self.post(&path, &json!({"text": keys}));
    }

    /// How a screen reader calls everything that can be used and is to be seen: (role, name, HTML).
    pub fn names(&self) -> Vec<(String, String, String)> {
        let all = self.post(
            "/elements",
            &json!({"using": "css selector", "value": "button, input, textarea, [role=tab]"}),
        );
        let elements = all.as_array().unwrap().iter();
        let seen = elements.filter_map(|element| {
            let path = format!("/element/{}", element[ELEMENT].as_str().unwrap());
            let role = self.get(&format!("{path}/computedrole"));
            let name = self.get(&format!("{path}/computedlabel"));
            let html = self.get(&format!("{path}/property/outerHTML"));
            let shown = self.get(&format!("{path}/displayed")) == json!(true);
            let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
            shown.then(|| (text(role), text(name), text(html)))
        });
        seen.collect()
    }

    /// Light or dark, and so wide.
    pub fn look(&self, scheme: &str, width: u32, height: u32) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        for (command, parameters) in [
            ("Emulation.setEmulatedMedia", features),
            ("Emulation.setDeviceMetricsOverride", size),
        ] {
            self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}));
        }
    }

    /// The picture as a PNG in base 64.
    pub fn picture(&self) -> String {
        self.get("/screenshot").as_str().unwrap().to_owned()
    }

    pub fn reload(&self) {
        self.post("/refresh", &json!({}));
    }

    /// Errors that the browser reported.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "browser"}));
        let severe = log
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
