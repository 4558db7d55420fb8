//! [`Roles`]: which product of the graph is which projection of the model.

use std::collections::HashMap;

use super::graph::Graph;
use super::linear::Linear;
use super::names;
use crate::ModelSpec;
use crate::load::naming::Naming;

/// Projections of a layer.
const PROJECTIONS: usize = 7;

/// Numbers of products by layer and projection.
#[derive(Debug, Default)]
pub(super) struct Roles {
    places: HashMap<(usize, usize), usize>,
    /// The output layer, if it was found.
    pub(super) output: Option<usize>,
}

impl Roles {
    /// Gives a product a place; false if the place is taken.
    pub(super) fn put(&mut self, layer: usize, projection: usize, number: usize) -> bool {
        self.places.insert((layer, projection), number).is_none()
    }

    pub(super) fn get(&self, layer: usize, projection: usize) -> Option<usize> {
        self.places.get(&(layer, projection)).copied()
    }

    /// Whether a product has a place.
    pub(super) fn has(&self, number: usize) -> bool {
        self.output == Some(number) || self.places.values().any(|&taken| taken == number)
    }

    /// Whether all projections of all layers are there.
    pub(super) fn is_complete(&self, spec: &ModelSpec) -> bool {
        (0..spec.num_layers).all(|layer| (0..PROJECTIONS).all(|p| self.places.contains_key(&(layer, p))))
    }

    /// Roles by the names of weights, else of nodes; nothing if two products have the same.
    pub(super) fn by_names(
        graph: &Graph<'_>,
        linears: &[Linear<'_>],
        naming: &Naming,
        spec: &ModelSpec,
    ) -> Option<Self> {
        let mut roles = Self::default();
        for (number, linear) in linears.iter().enumerate() {
            let named = |name: &str| names::projection(naming, name);
            let tensor = &linear.weight.tensor().name;
            let node = &graph.node(linear.node).name;
            let place = named(tensor).or_else(|| named(node)).filter(|(layer, _)| *layer < spec.num_layers);
            if let Some((layer, projection)) = place
                && !roles.put(layer, projection, number)
            {
                return None;
            }
        }
        roles.is_complete(spec).then_some(roles)
    }
}
