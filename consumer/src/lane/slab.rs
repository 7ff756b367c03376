//! A slab in pages: values have small numbers, numbers are used again, and a page that is empty is given
//! back to the allocator (all but one, so that a value that comes and goes does not cost an allocation).

use std::ops::{Index, IndexMut};

/// No number.
pub const NONE: u32 = u32::MAX;

const PAGE: usize = 512;

#[derive(Debug)]
enum Slot<T> {
    /// The next vacant slot of the page.
    Vacant(u32),
    Occupied(T),
}

#[derive(Debug)]
struct Page<T> {
    /// Empty for a page that was given back.
    slots: Vec<Slot<T>>,
    /// First vacant slot, or the number of slots.
    vacant: u32,
    live: u32,
}

impl<T> Page<T> {
    fn given_back() -> Self {
        Self {
            slots: Vec::new(),
            vacant: 0,
            live: 0,
        }
    }
}

/// Values by number.
#[derive(Debug)]
pub struct Slab<T> {
    pages: Vec<Page<T>>,
    /// The pages that have a vacant slot, each once; the last is filled first.
    open: Vec<u32>,
    /// A page without values that was not given back.
    spare: Option<u32>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            open: Vec::new(),
            spare: None,
            len: 0,
        }
    }
}

impl<T> Slab<T> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Takes a value in and says its number.
    ///
    /// # Panics
    /// Beyond 2³² values.
    #[inline]
    pub fn insert(&mut self, value: T) -> u32 {
        let number = match self.open.last() {
            Some(page) => *page,
            None => {
                let page = u32::try_from(self.pages.len()).expect("fewer than 2³² values");
                self.pages.push(Page::given_back());
                self.open.push(page);
                page
            }
        };
        if self.spare == Some(number) {
            self.spare = None;
        }
        let page = &mut self.pages[number as usize];
        let slot = page.vacant;
        if let Some(vacant) = page.slots.get_mut(slot as usize) {
            if let Slot::Vacant(next) = std::mem::replace(vacant, Slot::Occupied(value)) {
                page.vacant = next;
            }
        } else {
            if page.slots.capacity() == 0 {
                page.slots.reserve_exact(PAGE);
            }
            page.slots.push(Slot::Occupied(value));
            page.vacant = slot + 1;
        }
        page.live += 1;
        self.len += 1;
        if page.live as usize == PAGE {
            self.open.pop();
        }
        number * PAGE as u32 + slot
    }

    /// Takes a value out.
    ///
    /// # Panics
    /// If there is none of this number.
    #[inline]
    pub fn remove(&mut self, number: u32) -> T {
        let (index, slot) = (number as usize / PAGE, number as usize % PAGE);
        let page = &mut self.pages[index];
        let vacant = Slot::Vacant(page.vacant);
        let Slot::Occupied(value) = std::mem::replace(&mut page.slots[slot], vacant) else {
            unreachable!("value {number} is taken out twice");
        };
        page.vacant = slot as u32;
        if page.live as usize == PAGE {
            self.open.push(index as u32);
        }
        page.live -= 1;
        self.len -= 1;
        if page.live == 0 {
            self.emptied(index as u32);
        }
        value
    }

    fn emptied(&mut self, page: u32) {
        if self.len == 0 && self.pages.len() > 1 {
            let first = self.pages.swap_remove(page as usize);
            self.pages = vec![first];
            self.open = vec![0];
            self.spare = Some(0);
        } else if self.spare.is_some() {
            self.pages[page as usize] = Page::given_back();
        } else {
            self.spare = Some(page);
        }
    }

    /// The value of this number, if there is one.
    #[inline]
    pub fn get(&self, number: u32) -> Option<&T> {
        let (page, slot) = (number as usize / PAGE, number as usize % PAGE);
        match self.pages.get(page)?.slots.get(slot)? {
            Slot::Occupied(value) => Some(value),
            Slot::Vacant(_) => None,
        }
    }

    /// The value of this number, if there is one.
    #[inline]
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (page, slot) = (number as usize / PAGE, number as usize % PAGE);
        match self.pages.get_mut(page)?.slots.get_mut(slot)? {
            Slot::Occupied(value) => Some(value),
            Slot::Vacant(_) => None,
        }
    }

    /// All values with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let slots = self.pages.iter().enumerate().flat_map(|(page, of)| {
            let first = (page * PAGE) as u32;
            (first..).zip(&of.slots)
        });
        slots.filter_map(|(number, slot)| match slot {
            Slot::Occupied(value) => Some((number, value)),
            Slot::Vacant(_) => None,
        })
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, number: u32) -> &T {
        match &self.pages[number as usize / PAGE].slots[number as usize % PAGE] {
            Slot::Occupied(value) => value,
            Slot::Vacant(_) => unreachable!("value {number} was taken out"),
        }
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, number: u32) -> &mut T {
        match &mut self.pages[number as usize / PAGE].slots[number as usize % PAGE] {
            Slot::Occupied(value) => value,
            Slot::Vacant(_) => unreachable!("value {number} was taken out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..6000)) {
            let (mut slab, mut model, mut numbers) = (Slab::default(), HashMap::new(), Vec::new());
            for (step, (insert, pick)) in steps.into_iter().enumerate() {
                // Three phases of growth, shrinking and growth, so that pages come and go.
                if numbers.is_empty() || (insert || step < 2000) && !(2000..4500).contains(&step) {
                    let number = slab.insert(step);
                    prop_assert!(model.insert(number, step).is_none());
                    numbers.push(number);
                } else {
                    let number = numbers.swap_remove(pick.index(numbers.len()));
                    prop_assert_eq!(slab.remove(number), model.remove(&number).unwrap());
                    prop_assert_eq!(slab.get(number), None);
                }
            }
            prop_assert_eq!(slab.len(), model.len());
            prop_assert_eq!(slab.iter().map(|(number, value)| (number, *value)).collect::<HashMap<_, _>>(), model);
        }
    }

    #[test]
    fn pages_are_given_back_when_they_are_empty() {
        let mut slab = Slab::default();
        let numbers: Vec<u32> = (0..100 * PAGE as u32)
            .map(|value| slab.insert(value))
            .collect();
        for number in &numbers[1..] {
            slab.remove(*number);
        }
        let kept = |slab: &Slab<u32>| slab.pages.iter().map(|page| page.slots.capacity()).sum();
        let slots: usize = kept(&slab);
        assert_eq!(slots, 2 * PAGE);
        slab.remove(numbers[0]);
        let slots: usize = kept(&slab);
        assert_eq!((slots, slab.pages.len(), slab.open.len()), (PAGE, 1, 1));
    }

    #[test]
    fn a_value_with_a_pointer_costs_no_tag() {
        assert_eq!(size_of::<Slot<(Box<u8>, u32)>>(), 16);
    }
}
