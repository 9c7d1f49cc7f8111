//! The page in a real browser. `.ci/page` installs one and runs this; pictures go to the folder that `PLANISH_PICTURES` names.

mod browser;
#[allow(dead_code, reason = "the tests of HTTP use the rest")]
#[path = "../http/server.rs"]
mod server;

use browser::{Browser, ENTER, ESCAPE, RIGHT, UP};
use planish::EngineOptions;
use planish_server::ServerOptions;
use serde_json::json;
use server::{Running, options};

const LAST: &str = "#log > :last-child";
const IDLE: &str =
    "document.querySelector('#log > .assistant:last-child') && !document.querySelector('[aria-busy=true]')";

/// Stops the answer as soon as a word of it is there, by a script's line.
fn when_it_begins(browser: &Browser, line: &str) {
    browser.script(&format!(
        "const observer = new MutationObserver(() => {{
            if (!document.querySelector('[aria-busy=true] .body')?.textContent) return;
            observer.disconnect();
            {line}
        }});
        observer.observe(document.getElementById('log'), {{childList: true, subtree: true, characterData: true}});"
    ));
}

fn picture(browser: &Browser, name: &str) {
    let Some(folder) = std::env::var_os("PLANISH_PICTURES") else {
        return;
    };
    let path = std::path::Path::new(&folder).join(format!("{name}.png.base64"));
    std::fs::write(path, browser.picture()).unwrap();
}

/// Brightness of the page's background, 0 to 255.
fn brightness(browser: &Browser) -> u64 {
    let color = browser.script("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)");
    color
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part.as_u64().unwrap())
        .sum::<u64>()
        / 3
}

#[test]
#[ignore = "needs a browser: run by .ci/page"]
fn conversations_are_had() {
    let server = Running::usual();
    let browser = Browser::open(&server.url("/"));
    browser.until("document.getElementById('greeting').textContent.includes('mind')");
    assert_eq!(browser.text("#model"), "story");

    // An answer comes word by word.
    browser.script(
        "window.seen = new Set();
        new MutationObserver(() => seen.add(document.querySelector('[aria-busy=true] .body')?.textContent.length))
            .observe(document.getElementById('log'), {childList: true, subtree: true, characterData: true});",
    );
    browser.script("document.getElementById('temperature').value = 0; document.getElementById('temperature').dispatchEvent(new Event('input'))");
    browser.keys("#message", "Once upon a time <img src=x onerror=\"window.bad=1\">");
    browser.keys("#message", ENTER);
    browser.until(IDLE);
    let steps = browser.script("return seen.size").as_u64().unwrap();
    assert!(steps > 3, "{steps} steps");
    assert_eq!((browser.count("#log > li"), browser.count("#log img")), (2, 0));
    let told = browser.text(".message:last-child .note");
    assert!(told.contains("tokens/s") && told.contains("first after"), "{told}");
    assert!(
        browser.text("#context-text").contains(" tokens"),
        "{}",
        browser.text("#context-text")
    );
    let first = browser.text(&format!("{LAST} .body"));
    assert_eq!(
        browser.text("#told"),
        first,
        "a screen reader hears the answer when it is whole"
    );

    // The likeliest words are the same again.
    browser.click_button("Regenerate");
    browser.until(IDLE);
    assert_eq!(
        (browser.count("#log > li"), browser.text(&format!("{LAST} .body"))),
        (2, first.clone())
    );

    // An answer can be stopped, by the button or by a key, and its place is free at once.
    for stop in [
        "document.getElementById('stop').click()",
        "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))",
    ] {
        when_it_begins(&browser, stop);
        browser.click_button("Regenerate");
        browser.until("document.querySelector('.message:last-child .note')?.textContent.startsWith('stopped')");
        browser.until("fetch('/health').then((answer) => answer.json()).then((state) => state.running === 0)");
    }
    assert!(first.starts_with(&browser.text(&format!("{LAST} .body"))));

    // Another beginning, by keys alone.
    browser.keys("#message", UP);
    assert_eq!(browser.script("return document.activeElement.className"), "edit");
    browser.keys_to_focus(ESCAPE);
    assert_eq!(browser.count(".edit"), 0);
    browser.keys("#message", UP);
    browser.script("document.querySelector('.edit').value = 'There was a dog'");
    browser.keys_to_focus(ENTER);
    browser.until(IDLE);
    assert_eq!(
        (
            browser.count("#log > li"),
            browser.text("#log > :first-child .body").as_str()
        ),
        (2, "There was a dog")
    );
    assert_ne!(browser.text(&format!("{LAST} .body")), first);

    // It is all there after the page was left, and another conversation begins empty.
    let last = browser.text(&format!("{LAST} .body"));
    browser.reload();
    browser.until("document.querySelectorAll('#log > li').length === 2");
    assert_eq!(browser.text(&format!("{LAST} .body")), last);
    browser.click("#new");
    assert_eq!(
        (browser.count("#log > li"), browser.count("#conversations > li")),
        (0, 1)
    );

    // Settings reach the server: one that it refuses is an error that can be read and mended.
    browser.click("#show-settings");
    browser.keys("#system", "Tell of cats.");
    browser.keys("#temperature", "9");
    browser.keys("#message", "Hello");
    browser.keys("#message", ENTER);
    browser.until("document.querySelector('#log > .error')");
    assert!(browser.text("#log > .error .body").contains("temperature"));
    assert!(browser.text("#told").starts_with("Error: temperature"));
    browser.script("document.getElementById('temperature').value = 0; document.getElementById('temperature').dispatchEvent(new Event('input'))");
    browser.click_button("Try again");
    browser.until(IDLE);
    browser.script("document.getElementById('schema').value = '{'; document.getElementById('schema').dispatchEvent(new Event('input'))");
    assert!(browser.text("#schema-note").contains("JSON"));

    // A text from a file goes before the message.
    browser.script(
        "document.getElementById('schema').value = ''; document.getElementById('schema').dispatchEvent(new Event('input'));
        const files = new DataTransfer();
        files.items.add(new File(['a cat sat'], 'cat.txt', {type: 'text/plain'}));
        document.getElementById('file').files = files.files;
        document.getElementById('file').dispatchEvent(new Event('change'));
        const fetched = window.fetch;
        window.fetch = (path, asked) => { window.asked = asked?.body ?? window.asked; return fetched(path, asked); };",
    );
    browser.until("document.querySelector('#files .chip')");
    browser.keys("#message", "Go on");
    browser.click("#send");
    browser.until(IDLE);
    let asked: serde_json::Value =
        serde_json::from_str(browser.script("return window.asked").as_str().unwrap()).unwrap();
    assert_eq!(
        asked["messages"][0],
        json!({"role": "system", "content": "Tell of cats."})
    );
    assert_eq!(
        asked["messages"].as_array().unwrap().last().unwrap()["content"],
        "cat.txt:\n```\na cat sat\n```\n\nGo on"
    );
    // The refused temperature was the one error.
    let complaints = browser.complaints();
    assert!(complaints.len() == 1 && complaints[0].contains("400"), "{complaints:?}");
}

#[test]
#[ignore = "needs a browser: run by .ci/page"]
fn it_looks_right_and_can_be_used_by_all() {
    let server = Running::usual();
    let browser = Browser::open(&server.url("/"));
    browser.until("document.getElementById('model').textContent");
    browser.keys("#message", "Tell me a story about a dog who found a red ball.");
    browser.keys("#message", ENTER);
    browser.until(IDLE);
    // Texts are shown by a subset of Markdown, and never become markup.
    browser.script(
        "return import('/text.js').then(({show}) => show(document.querySelector('#log > :last-child .body'),
            '## A plan\\n\\nFirst *look*, **then** `run()`; see [the page](https://example.org/a).\\n\\n- one\\n- two <b>2</b>\\n\\n'
            + '3. three\\n4. four\\n\\n> quoted\\n\\n```rust\\nfn main() {\\n    let x = \"<i>\";\\n}\\n```\\n\\n[no](javascript:alert(1)) <script>window.bad=1</script>'))",
    );
    let body = format!("{LAST} .body");
    for (selector, count) in [
        ("h4", 1),
        ("em", 1),
        ("strong", 1),
        ("code", 2),
        ("ul > li", 2),
        ("ol[start='3'] > li", 2),
        ("blockquote", 1),
        ("pre > code", 1),
        ("a", 1),
        ("b, i, script, img", 0),
    ] {
        let selector = selector
            .split(", ")
            .map(|part| format!("{body} {part}"))
            .collect::<Vec<_>>()
            .join(", ");
        assert_eq!(browser.count(&selector), count, "{selector}");
    }
    // Not even a script that gets into the page runs.
    browser.script("const script = document.createElement('script'); script.textContent = 'window.bad = 1'; document.body.append(script)");
    assert_eq!(browser.script("return window.bad ?? null"), json!(null));

    let (mut bright, mut dark) = (0, 0);
    for (name, width) in [("wide", 1200), ("narrow", 400)] {
        for scheme in ["light", "dark"] {
            browser.look(scheme, width, 800);
            let overflow = browser.script("return document.documentElement.scrollWidth - innerWidth");
            assert!(
                overflow.as_i64().unwrap() <= 0,
                "{name} {scheme}: {overflow} pixels stand out"
            );
            *(if scheme == "light" { &mut bright } else { &mut dark }) = brightness(&browser);
            picture(&browser, &format!("chat-{name}-{scheme}"));
            browser.click("#show-settings");
            picture(&browser, &format!("settings-{name}-{scheme}"));
            for (role, words, html) in browser.names() {
                assert!(
                    !words.trim().is_empty() && role != "generic",
                    "{role} without a name: {html}"
                );
            }
            browser.click("#hide-settings");
            browser.keys("#tab-chat", RIGHT);
            browser.until("document.querySelectorAll('#numbers dd').length === 6");
            browser.until("document.getElementById('rates-note').textContent.includes('at most')");
            picture(&browser, &format!("server-{name}-{scheme}"));
            browser.keys("#tab-server", RIGHT);
        }
    }
    assert!(bright > 200 && dark < 60, "{bright} {dark}");
    browser.click("#tab-server");
    assert!(
        browser.text("#requests").contains("/v1/chat/completions200"),
        "{}",
        browser.text("#requests")
    );
    let complaints = browser.complaints();
    assert!(
        complaints.iter().all(|said| said.contains("Content Security Policy")),
        "{complaints:?}"
    );
}

#[test]
#[ignore = "needs a browser: run by .ci/page"]
fn a_key_is_asked_for() {
    let options = ServerOptions {
        api_key: Some("secret".to_owned()),
        ..options()
    };
    let server = Running::start(options, EngineOptions::default());
    let browser = Browser::open(&server.url("/"));
    browser.until("document.getElementById('greeting-note').textContent.includes('key')");
    browser.click("#show-settings");
    browser.keys("#key", "secret");
    browser.click("#hide-settings");
    browser.until("document.getElementById('model').textContent === 'story'");
    browser.click("#tab-server");
    browser.until("document.querySelectorAll('#numbers dd').length === 6");
}
