// The chat page in headless Chromium, against a running server with the bundled model: `cargo xtask web`.

import "./chat.suite.mjs";
import "./page.suite.mjs";
