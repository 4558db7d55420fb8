//! Reports: pages of facts, tables and plots that need nothing but themselves.
//!
//! A [`Page`] puts headings, paragraphs, figures and tables together; [`Chart`] draws lines, [`Bars`] bars, [`Scatter`]
//! points. Each drawing is an SVG in a [`Frame`] of two [`Axis`]; [`svg`] has the elements that drawings are made of. A page
//! is well-formed XML as well as HTML: every element is closed, every attribute is quoted. Colours belong to the page.

mod axes;
mod bars;
mod chart;
mod page;
mod scatter;
pub(crate) mod svg;

pub(crate) use axes::{Axis, Frame, Legend};
pub(crate) use bars::{Bar, Bars};
pub(crate) use chart::{Chart, Series, Value};
pub(crate) use page::{Column, Page};
pub(crate) use scatter::{Points, Scatter};

#[cfg(test)]
pub(crate) use page::tests::elements;
