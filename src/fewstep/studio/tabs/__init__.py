"""The studio's tabs, one file each: widgets that fill the requests of `fewstep.studio.work`."""
