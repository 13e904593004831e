//! What is offered: the tools of all machines, by tenant.
//!
//! | part | job |
//! |---|---|
//! | [`announce`] | what this machine offers, told to the others |
//! | [`canonical`] | a definition's one text, and the hash that names it |
//! | [`Offer`], [`TaskSupport`] | one tool as it is offered |
//! | [`Snapshot`] | all that a tenant is offered, and what is held |
//! | [`Reader`] | reads one from the database |
//! | `pins` (feature) | what is approved and what is held, for people |
//! | [`Catalogue`] (feature `api`) | the snapshots, kept fresh |

pub mod announce;
pub mod canonical;
#[cfg(feature = "api")]
mod live;
mod offer;
#[cfg(feature = "pins")]
pub mod pins;
mod read;
mod snapshot;

#[cfg(feature = "api")]
pub use self::live::Catalogue;
pub use self::offer::{Offer, TaskSupport};
pub use self::read::{Read, Reader};
pub use self::snapshot::{Approved, Held, Snapshot};
