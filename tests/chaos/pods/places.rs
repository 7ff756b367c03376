//! Which pod has which place of the schedule. Pure.
//!
//! The schedule knows places; pods come and go in them. Which pod goes when there is to be one less is
//! for Kubernetes to choose: the places are exchanged then.

use std::collections::VecDeque;

/// The places, with the member that has each.
#[derive(Debug, Default)]
pub struct Places {
    all: Vec<Option<usize>>,
    /// Places that are to be filled, in this order.
    filling: VecDeque<usize>,
    /// Places of which Kubernetes is to empty one each.
    emptying: VecDeque<usize>,
}

impl Places {
    /// So many, empty.
    pub fn new(count: usize) -> Self {
        Self {
            all: vec![None; count],
            ..Self::default()
        }
    }

    /// Who has this place.
    pub fn at(&self, place: usize) -> Option<usize> {
        self.all.get(place).copied().flatten()
    }

    /// The next pod that comes is for this place.
    pub fn fill(&mut self, place: usize) {
        self.filling.push_back(place);
    }

    /// The next pod that goes by itself is this place's.
    pub fn empty(&mut self, place: usize) {
        self.emptying.push_back(place);
    }

    /// A pod has come.
    pub fn comes(&mut self, member: usize) {
        let free = |place: &usize| self.at(*place).is_none();
        let wanted = self.filling.iter().position(free);
        let place = match wanted {
            Some(wanted) => self.filling.remove(wanted),
            None => (0..self.all.len()).find(free),
        };
        if let Some(place) = place {
            self.all[place] = Some(member);
        }
    }

    /// A pod goes because it was deleted: another one comes for its place.
    pub fn is_replaced(&mut self, member: usize) {
        if let Some(place) = self.of(member) {
            self.all[place] = None;
            self.fill(place);
        }
    }

    /// A pod goes because there is to be one less.
    pub fn is_spared(&mut self, member: usize) {
        let Some(place) = self.of(member) else { return };
        self.all[place] = None;
        if let Some(meant) = self.emptying.pop_front() {
            self.all.swap(place, meant);
        }
    }

    fn of(&self, member: usize) -> Option<usize> {
        self.all.iter().position(|one| *one == Some(member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_pod_is_replaced_in_its_place() {
        let mut places = Places::new(3);
        for member in 0..3 {
            places.fill(member);
            places.comes(member);
        }
        places.is_replaced(1);
        assert_eq!(places.all, [Some(0), None, Some(2)]);
        places.comes(3);
        assert_eq!(places.all, [Some(0), Some(3), Some(2)]);
    }

    #[test]
    fn the_place_that_was_to_be_emptied_is_empty_whichever_pod_goes() {
        let mut places = Places::new(3);
        (0..3).for_each(|member| places.comes(member));
        places.empty(0);
        places.is_spared(2);
        assert_eq!(places.all, [None, Some(1), Some(0)]);
        places.fill(0);
        places.comes(4);
        assert_eq!(places.all, [Some(4), Some(1), Some(0)]);
    }

    #[test]
    fn one_that_comes_before_the_other_has_gone_takes_the_next_free_place() {
        let mut places = Places::new(2);
        (0..2).for_each(|member| places.comes(member));
        // Its object is still there.
        places.comes(2);
        assert_eq!(places.all, [Some(0), Some(1)]);
        places.is_replaced(0);
        places.comes(3);
        assert_eq!(places.at(0), Some(3));
    }
}
