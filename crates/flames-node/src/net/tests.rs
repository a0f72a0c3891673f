//! What guests try, and what arrives: slots between test hosts in namespaces. Needs root.

mod egress;
mod figures;
mod frames;
mod slots;
mod testbed;
mod vm;
