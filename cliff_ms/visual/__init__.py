"""Images, pages and meshes of bodies."""
