"""Workers that train apart from each other, and exchange what they have learned seldom."""
