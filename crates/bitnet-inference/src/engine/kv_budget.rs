//! [`Room`]: how much memory keys and values may take where nobody says it.
//!
//! It is a bound: memory is taken as texts grow. On the processor it is a few full conversations, since programs share
//! memory there. A GPU's memory is for what runs on it, and with few conversations many requests would wait for each other:
//! 64 requests of 512 tokens take 798 steps on an H200 if the 2B-4T shape has room for four conversations, and 520 if they have
//! all they need, 15,100 and 23,200 tokens/s.

use bitnet_core::MemorySize;

/// How many full conversations an engine keeps in memory unless told otherwise.
const SESSIONS: usize = 4;

/// What the bound depends on; sizes are bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Keys and values of a conversation as long as the context.
    pub(super) conversation: u64,
    /// Conversations that somebody asked for.
    pub(super) sessions: Option<usize>,
    /// Requests that run together.
    pub(super) max_running: usize,
    /// What keys and values may take, if somebody says it of all memory beside the weights.
    pub(super) limit: Option<u64>,
    /// What the GPU has left, if one computes and it is known.
    pub(super) device: Option<u64>,
    /// What this machine has free, if the processor shall go on when the GPU fails.
    pub(super) standby: Option<u64>,
}

impl Room {
    /// Full conversations that there is room for if nothing is short of memory.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.unwrap_or(SESSIONS)
    }

    /// The bound, unless it is that of [`sessions`](Self::sessions).
    pub(super) fn budget(&self) -> Option<MemorySize> {
        let of = |conversations: usize| self.conversation.saturating_mul(conversations as u64);
        let full = of(self.sessions());
        let wanted = match (self.sessions, self.device) {
            (None, Some(device)) => {
                let half = device.min(self.standby.unwrap_or(u64::MAX)) / 2;
                full.max(of(self.max_running).min(half))
            }
            _ => full,
        };
        // Of what a GPU has left, a part is for the buffers of calls.
        let most = self.limit.unwrap_or(u64::MAX).min(self.device.map_or(u64::MAX, |left| left / 8 * 7));
        let bytes = wanted.min(most);
        (bytes != full).then_some(MemorySize::bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room =
        Room { conversation: 100, sessions: None, max_running: 64, limit: None, device: None, standby: None };

    fn bytes(room: Room) -> Option<u64> {
        room.budget().map(MemorySize::as_bytes)
    }

    #[test]
    fn the_processor_has_room_for_a_few_conversations() {
        assert_eq!(bytes(ROOM), None);
        assert_eq!(ROOM.sessions(), 4);
        assert_eq!(bytes(Room { limit: Some(150), ..ROOM }), Some(150));
        assert_eq!(bytes(Room { limit: Some(1000), ..ROOM }), None);
    }

    #[test]
    fn a_gpu_has_room_for_all_requests_in_half_of_its_memory() {
        assert_eq!(bytes(Room { device: Some(100_000), ..ROOM }), Some(6400));
        assert_eq!(bytes(Room { device: Some(2000), ..ROOM }), Some(1000));
        assert_eq!(bytes(Room { device: Some(100_000), standby: Some(1200), ..ROOM }), Some(600));
        assert_eq!(bytes(Room { device: Some(100_000), limit: Some(500), ..ROOM }), Some(500));
        // A few conversations are worth more than half.
        assert_eq!(bytes(Room { device: Some(500), ..ROOM }), None);
        assert_eq!(bytes(Room { device: Some(400), ..ROOM }), Some(350));
    }

    #[test]
    fn what_somebody_asked_for_counts() {
        assert_eq!(bytes(Room { sessions: Some(7), device: Some(100_000), ..ROOM }), None);
        assert_eq!(bytes(Room { sessions: Some(7), device: Some(400), ..ROOM }), Some(350));
    }
}
