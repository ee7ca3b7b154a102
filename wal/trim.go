package wal

import "slices"

// Trim gives back the room that a log keeps for what is to come: the spare, files
// kept to be used again, and, when all records are at or below settled and nobody
// holds their files, every file. settled is as in TruncateFront; where records above
// it were committed meanwhile, Trim does nothing. The next commit makes a file, and
// files grow anew from Options.FirstFileSize.
func (l *Log) Trim(settled LSN) error {
	return l.exec(func() error { return l.trim(settled) })
}

func (l *Log) trim(settled LSN) error {
	if err := l.Err(); err != nil {
		return err
	}
	last := l.next - 1
	if last > settled || last > l.durable.Load() {
		return nil
	}
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	var e Edit
	if l.spare != nil {
		e.Remove = append(e.Remove, l.spare.meta.Number)
	}
	gone := l.trimmable()
	if len(gone) > 0 {
		floor := l.pos
		if l.cur != nil {
			floor = Floor{File: l.cur.meta.Number, LSN: last, Hash: l.b.LastData()}
		}
		l.histMu.Lock()
		floor.Epoch = l.epochAt(last)
		l.histMu.Unlock()
		e.Floor = &floor
		// A void file may name the floor's file, with records that it does not have.
		e.Remove = append(e.Remove, l.void...)
	}
	for _, sp := range gone {
		e.Remove = append(e.Remove, sp.meta.Number)
	}
	if len(e.Remove) > 0 {
		if err := l.cat.EditLog(&e); err != nil {
			if l.cat.Err() == nil { // refused
				return err
			}
			// It may be there: then what is written to the file from now on is lost.
			l.poisonWith(err)
			return l.Err()
		}
	}
	if f := l.spare; f != nil {
		l.spare = nil
		l.unused.Add(-f.size)
		f.close()
		l.fsys.Remove(f.path) // an unlisted file that stays is removed by the next open
	}
	l.dropRecyclable()
	l.nextSize = l.opts.FirstFileSize
	if len(gone) == 0 {
		return nil
	}
	if l.cur != nil {
		l.cur.close()
		l.cur = nil
	}
	l.pos = *e.Floor
	l.histMu.Lock()
	l.floor = l.pos
	l.hist = slices.DeleteFunc(l.hist, func(sp *span) bool { return slices.Contains(gone, sp) })
	l.histMu.Unlock()
	for _, sp := range gone {
		l.fsys.Remove(join(l.dir, FileName(sp.meta.Number)))
	}
	for _, n := range l.void {
		l.fsys.Remove(join(l.dir, FileName(n)))
	}
	l.void = nil
	return nil
}

// trimmable returns the live files, unless somebody holds one of them. All their
// records are settled; fileMu is held.
func (l *Log) trimmable() (gone []*span) {
	l.histMu.Lock()
	hist := slices.Clone(l.hist)
	l.histMu.Unlock()
	for _, sp := range hist {
		if !sp.live {
			continue
		}
		last := *sp
		if sp == hist[len(hist)-1] { // what a file holds is known when it is left
			last.last, last.keep = l.next-1, max(sp.keep, l.keepSum-min(l.keepSum, sp.given))
		}
		if l.held(&last) {
			return nil
		}
		gone = append(gone, sp)
	}
	return gone
}
