//! [`Hub`]: the Hub and the cache together.

use crate::api::Api;
use crate::events::Observer;
use crate::{Cache, Found, HubConfig, ModelName, Plan, Result, pull};

/// An answer of the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Whom the token belongs to; `None` without a token.
    pub user: Option<String>,
    /// How long the answer took.
    pub time: std::time::Duration,
}

/// Finds models in the cache and fetches them from the Hub.
///
/// ```no_run
/// use bitnet_hub::{Hub, HubConfig, ModelName, silent};
///
/// # fn main() -> bitnet_hub::Result<()> {
/// let hub = Hub::new(HubConfig::from_env()?)?;
/// let name = ModelName::parse("microsoft/bitnet-b1.58-2B-4T")?;
/// let found = match hub.find(&name)? {
///     Some(found) => found,
///     None => hub.fetch(&hub.plan(&name, &silent)?, &silent)?,
/// };
/// # let _ = found.path;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Hub {
    api: Api,
    cache: Cache,
}

impl Hub {
    /// Prepares; nothing is read or sent yet.
    ///
    /// # Errors
    /// [`HubError::Config`](crate::HubError::Config) if the certificates cannot be read.
    pub fn new(config: HubConfig) -> Result<Self> {
        let cache = Cache::new(&config.cache);
        Ok(Self { api: Api::new(config)?, cache })
    }

    /// Where and how.
    pub fn config(&self) -> &HubConfig {
        &self.api.config
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Finds a model in the cache, without the network.
    ///
    /// # Errors
    /// As [`Cache::find`].
    pub fn find(&self, name: &ModelName) -> Result<Option<Found>> {
        self.cache.find(name)
    }

    /// Asks whether the Hub answers and takes the token, once.
    ///
    /// # Errors
    /// [`HubError::Offline`](crate::HubError::Offline) if the network must not be used,
    /// [`HubError::BadToken`](crate::HubError::BadToken) if the Hub does not take the token; else why there is no answer.
    pub fn reach(&self) -> Result<Reached> {
        self.api.reach()
    }

    /// Asks the Hub what a model needs. The index of sharded weights is fetched on the way.
    ///
    /// # Errors
    /// [`HubError::Offline`](crate::HubError::Offline) if the network must not be used; else what the Hub says.
    pub fn plan(&self, name: &ModelName, observer: &Observer<'_>) -> Result<Plan> {
        pull::plan(&self.api, &self.cache, name, observer)
    }

    /// Fetches what is not there, verifies it and puts it in place.
    ///
    /// # Errors
    /// If a file cannot be fetched or is not what was announced. What came stays, for the next attempt.
    pub fn fetch(&self, plan: &Plan, observer: &Observer<'_>) -> Result<Found> {
        pull::fetch(&self.api, &self.cache, plan, observer)
    }
}
