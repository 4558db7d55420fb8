//! Tests of the scheduler's steps.
