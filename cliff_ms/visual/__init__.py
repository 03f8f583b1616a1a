"""Pictures, pages and meshes of bodies."""
