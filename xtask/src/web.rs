//! `cargo xtask web`: the chat page, in headless Chromium and by itself.
//!
//! The tests are JavaScript, in `crates/bitnet-server/tests/web/`, run by node's own test runner; they drive Chromium over
//! a pipe and need no packages. The page talks to a real server with the bundled model, and to one that wants an API key.
//!
//! Needed are node (18 or later) and Chromium or Chrome. A machine of CI gets Debian's packages installed; anywhere else
//! the step fails and says what is missing: a page that no browser has shown is not tested.

use std::process::{Command, Stdio};

use crate::packages;
use crate::process::{self, Failure, Outcome, Workspace, answers};
use crate::server::{self, Server};

const TESTS: [&str; 3] = ["markdown.test.mjs", "data.test.mjs", "browser.test.mjs"];

/// What the browser is called: by the environment, by Debian, by others.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

const PACKAGES: [&str; 2] = ["chromium", "nodejs"];

/// The key that the second server wants.
const KEY: &str = "a key of the browser test";

/// Builds the program, starts it, and runs the tests.
///
/// # Errors
/// When tools are missing, the program does not build or serve, or a test fails.
pub(crate) fn run(workspace: &Workspace) -> Outcome {
    let browser = tools()?;
    let program = server::program(workspace)?;
    let server = Server::start(&program, &[])?;
    let guarded = Server::start(&program, &["--api-key", KEY])?;
    let mut node = Command::new("node");
    node.args(["--test", "--test-reporter=spec"])
        .args(TESTS)
        .current_dir(workspace.root().join("crates/bitnet-server/tests/web"))
        .env("CHROMIUM", browser)
        .env("BITNET_URL", server.url())
        .env("BITNET_KEY_URL", guarded.url())
        .env("BITNET_KEY", KEY)
        .stdin(Stdio::null());
    process::run(&mut node)?;
    server.stop()?;
    guarded.stop()
}

/// The browser; installs what is missing where that may be done.
fn tools() -> Result<String, Failure> {
    match find_tools() {
        Ok(browser) => Ok(browser),
        Err(missing) if packages::may_install() => {
            eprintln!("missing: {}; installing packages", missing.join(", "));
            packages::install(&packages::commands(&PACKAGES))?;
            find_tools()
                .map_err(|missing| Failure(packages::advice(&missing, &packages::commands(&PACKAGES))))
        }
        Err(missing) => Err(Failure(packages::advice(&missing, &packages::commands(&PACKAGES)))),
    }
}

/// The browser, or what is missing.
fn find_tools() -> Result<String, Vec<String>> {
    let named = std::env::var("CHROMIUM").ok();
    let mut candidates = named.into_iter().chain(BROWSERS.map(str::to_owned));
    let browser = candidates.find(|name| answers(Command::new(name)));
    let mut missing = Vec::new();
    if browser.is_none() {
        missing.push(format!("a browser ({})", BROWSERS.join(", ")));
    }
    if !answers(Command::new("node")) {
        missing.push("node".to_owned());
    }
    browser.filter(|_| missing.is_empty()).ok_or(missing)
}
