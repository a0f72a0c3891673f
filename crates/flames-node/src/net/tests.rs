//! What guests try, and what arrives: slots between test hosts in namespaces. Needs root.

#![allow(clippy::cast_possible_truncation, reason = "all of these numbers are small")]

mod egress;
mod figures;
mod frames;
mod http;
mod rules;
mod slots;
mod testbed;
mod vm;
