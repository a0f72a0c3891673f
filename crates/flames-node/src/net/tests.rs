//! What guests try, and what arrives: slots between test hosts in namespaces. Needs root.

mod egress;
mod frames;
mod slots;
mod testbed;
