//! SIGTERM and SIGINT as futures.

use tokio::sync::watch;

/// The signals of a process that is to end: the first asks politely, the second does not.
#[derive(Debug, Clone)]
pub struct Signals(watch::Receiver<u32>);

impl Signals {
    /// Done when the first signal came.
    pub async fn first(&self) {
        self.reach(1).await;
    }

    /// Done when the second signal came.
    pub async fn second(&self) {
        self.reach(2).await;
    }

    async fn reach(&self, count: u32) {
        let mut seen = self.0.clone();
        if seen.wait_for(|&n| n >= count).await.is_err() {
            // No signals can be had: they never come.
            std::future::pending::<()>().await;
        }
    }
}

/// Takes over SIGTERM and SIGINT (Ctrl-C) of this process. Needs a runtime.
pub fn signals() -> Signals {
    let (count, seen) = watch::channel(0);
    tokio::spawn(async move {
        while next().await {
            count.send_modify(|n| *n += 1);
        }
        // Keeps the channel open for those who wait.
        count.closed().await;
    });
    Signals(seen)
}

/// Waits for a signal; false if there can be none.
#[cfg(unix)]
async fn next() -> bool {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return false;
    };
    tokio::select! {
        came = term.recv() => came.is_some(),
        came = int.recv() => came.is_some(),
    }
}

#[cfg(not(unix))]
async fn next() -> bool {
    tokio::signal::ctrl_c().await.is_ok()
}
