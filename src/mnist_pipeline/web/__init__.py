"""The live page: what a site's two topics tell, its objects and its shelves, for browsers; and uploads, if allowed."""
