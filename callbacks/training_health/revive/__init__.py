"""What `ReviveUnits` is made of: which layers belong to a unit, which units are chosen, how they begin again."""
